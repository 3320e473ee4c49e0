"""Files for browsers, out of memory."""

import hashlib
from dataclasses import dataclass
from http import HTTPStatus
from typing import Self

from fastapi import Request
from fastapi.responses import Response

METHODS = ["GET", "HEAD"]
MEDIA_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}


@dataclass(frozen=True, slots=True)
class File:
    """What is served under one name, and a tag that changes with it."""

    body: bytes
    media_type: str
    tag: str

    @classmethod
    def of(cls, body: bytes, suffix: str) -> Self:
        """A file of one of MEDIA_TYPES."""
        return cls(body, MEDIA_TYPES[suffix], f'"{hashlib.sha256(body).hexdigest()[:32]}"')

    def answer(self, request: Request) -> Response:
        """The file, or that the browser's copy is still good.

        A browser asks each time, so that a new version is seen at once.
        """
        headers = {"Cache-Control": "no-cache", "ETag": self.tag}
        if self.tag in request.headers.get("If-None-Match", ""):
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        return Response(self.body, headers=headers, media_type=self.media_type)
