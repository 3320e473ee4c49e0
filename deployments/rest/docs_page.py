"""The page /docs: Swagger UI, which its browser loads from a public server."""

import base64
import hashlib
import re

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse

ASSETS = "https://cdn.jsdelivr.net"
_INLINE_SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)
# Where it is in the head, a browser shows nothing until it is there, or was waited for in vain.
_STYLE_SHEET = re.compile(r'<link [^>]*rel="stylesheet"[^>]*>')
_CONTAINER = re.compile(r'(<div id="swagger-ui">)\s*(</div>)')
# Swagger UI replaces what its container has.
_UNTIL_IT_IS_THERE = """
    <p>This page is made by Swagger UI, which comes from cdn.jsdelivr.net. Where that can't be
    loaded, read the <a href="guide/api">API by example</a> or the
    <a href="openapi.json">OpenAPI document</a>: both come from this service.</p>
    """


def add_docs_page(app: FastAPI) -> None:
    """Serve /docs with a Content-Security-Policy for what this page needs, and no more."""
    html = _page(app.title)
    scripts = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
        for script in _INLINE_SCRIPT.findall(html)
    )
    policy = (
        f"default-src 'none'; script-src {ASSETS} {scripts}; style-src {ASSETS} 'unsafe-inline'; "
        "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(html, headers={"Content-Security-Policy": policy})


def _page(title: str) -> str:
    answer = get_swagger_ui_html(
        openapi_url="openapi.json", title=title, swagger_favicon_url="web/icon.svg"
    )
    html = bytes(answer.body).decode()
    style_sheets = "".join(_STYLE_SHEET.findall(html))
    container = rf"\g<1>{_UNTIL_IT_IS_THERE}\g<2>{style_sheets}"
    return _CONTAINER.sub(container, _STYLE_SHEET.sub("", html), count=1)
