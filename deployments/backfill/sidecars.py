"""`<name>.json` beside a file: metadata of all its rows, unless it is a transcript itself."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from deployments.backfill.rows import UnreadableSource
from deployments.backfill.sources import SourceFile

OF_A_SEGMENT = ("id", "segment_id", "text", "embedding", "start_time", "end_time", "timestamp")
"""Fields that each row has to give itself."""

MAX_SIDECAR_BYTES = 1024 * 1024

OF_A_TRANSCRIPT = ("segments", "word_segments", "transcription", "chunks", "utterances")
"""Lists of objects in the JSON that Whisper and the like write beside their subtitles."""

_BEGINS_AS_A_TRANSCRIPT = re.compile(
    rb'(?:\xef\xbb\xbf)?\s*(?:\[|\{.*"(?:' + "|".join(OF_A_TRANSCRIPT).encode() + rb')"\s*:\s*\[)',
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Sidecar:
    """Metadata for all of a file's rows. `warning` says why what lies beside the file is none."""

    metadata: Mapping[str, Any] = field(default_factory=dict)
    warning: str | None = None


def read_sidecar(file: SourceFile) -> Sidecar:
    """What the file beside says. Raises UnreadableSource for metadata that can't be used."""
    path, content = file.beside(f"{file.stem}.json", MAX_SIDECAR_BYTES + 1)
    if content is None:
        return Sidecar()
    if len(content) > MAX_SIDECAR_BYTES:
        if _BEGINS_AS_A_TRANSCRIPT.match(content):
            return _no_metadata(path)
        raise UnreadableSource(f"its metadata in {path} is longer than {MAX_SIDECAR_BYTES:,} bytes")
    try:
        document = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UnreadableSource(f"its metadata in {path} isn't JSON: {error}") from error
    if isinstance(document, list) or (isinstance(document, dict) and _is_transcript(document)):
        return _no_metadata(path)
    if not isinstance(document, dict):
        raise UnreadableSource(f"its metadata in {path} isn't a JSON object")
    own = [name for name in OF_A_SEGMENT if name in document]
    if own:
        raise UnreadableSource(
            f"its metadata in {path} has {own[0]}, which each row has of its own"
        )
    return Sidecar(document)


def _is_transcript(document: Mapping[str, Any]) -> bool:
    lists = [document[name] for name in OF_A_TRANSCRIPT if isinstance(document.get(name), list)]
    return any(all(isinstance(each, dict) for each in listed) for listed in lists)


def _no_metadata(path: str) -> Sidecar:
    return Sidecar(warning=f"{path} is a list or a transcript, no metadata, and isn't used")
