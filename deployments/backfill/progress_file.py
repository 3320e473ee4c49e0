"""Remembers across runs what is done.

Without it a backfill that was killed is right, too, when it runs again: what is stored already
isn't encoded a second time. But it is sent, at some thousand rows a second, and ten million would
take most of an hour. With it they are only read. It says for each file how many of its first rows
are done; a row counts only when the service has answered that it is durable.

It doesn't look at the service: whoever empties or restores the index deletes it.
"""

import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

from deployments.backfill.file_progress import Done, FileProgress
from deployments.backfill.rows import UnreadableSource
from deployments.backfill.sidecars import MAX_SIDECAR_BYTES
from deployments.backfill.sources import SourceFile
from deployments.core.durable_files import Disk
from deployments.core.errors import InvalidInput


class ProgressFile:
    """What is done of files, by their path, size, version, sidecar, and the options that matter.

    The sidecar that counts is that of the first look.
    """

    def __init__(self, path: Path, options: Sequence[object]) -> None:
        self.path = path
        self._options = json.dumps(options)
        self._keys: dict[str, str] = {}

    @cached_property
    def _files(self) -> dict[str, Any]:
        # Not read before it is known that it is no source.
        return _read(self.path)

    def done(self, file: SourceFile) -> Done:
        """What earlier runs have done of a file; nothing if it or the options changed.

        Raises InvalidInput if the path is that of something else.
        """
        entry = self._files.get(self._key(file))
        return Done(**entry["done"]) if entry else Done()

    def save(self, files: Iterable[FileProgress]) -> None:
        """Write down how far these files are, durably. Raises OSError."""
        for progress in files:
            done = progress.done()
            self._files[self._key(progress.file)] = {
                "source": progress.file.url,
                "done": {
                    "rows": done.rows,
                    "quarantined": done.quarantined,
                    "finished": done.finished,
                },
            }
        content = json.dumps({"version": 1, "files": self._files}, indent=1).encode()
        Disk().write_atomically(self.path, lambda sink: sink(content))

    def _key(self, file: SourceFile) -> str:
        if file.url not in self._keys:
            parts = [file.url, file.size, file.version, file.format, _sidecar(file), self._options]
            self._keys[file.url] = sha256(json.dumps(parts).encode()).hexdigest()
        return self._keys[file.url]


def _sidecar(file: SourceFile) -> str | None:
    try:
        _, content = file.beside(f"{file.stem}.json", MAX_SIDECAR_BYTES + 1)
    except UnreadableSource as error:
        return str(error)
    return sha256(content).hexdigest() if content is not None else None


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        document = json.loads(path.read_bytes())
        if document["version"] != 1:
            raise ValueError(f"its version is {document['version']}, expected 1")
        files = document["files"]
        for entry in files.values():
            Done(**entry["done"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInput(
            f"{path} is no progress file of a backfill ({error}); delete it, or name another"
        ) from error
    return dict(files)
