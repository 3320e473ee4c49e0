"""How pairs are typed in a shell: --map and --metadata."""

from collections.abc import Sequence

from deployments.backfill.sidecars import OF_A_SEGMENT
from deployments.core.errors import InvalidInput


def column_map(pairs: Sequence[str]) -> dict[str, str]:
    """`field=column` pairs as a mapping. Raises InvalidInput."""
    columns = _pairs(pairs, "--map", "media_item_id=video_id")
    sources = list(columns.values())
    if len(set(sources)) < len(sources):
        raise InvalidInput(f"--map names a column twice: {', '.join(pairs)}")
    return columns


def constant_metadata(pairs: Sequence[str]) -> dict[str, str]:
    """`key=value` pairs as a mapping. Raises InvalidInput."""
    metadata = _pairs(pairs, "--metadata", "course=options")
    own = [name for name in OF_A_SEGMENT if name in metadata]
    if own:
        raise InvalidInput(f"--metadata can't set {own[0]}, which each row has of its own")
    return metadata


def _pairs(pairs: Sequence[str], option: str, example: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name and equals and value):
            raise InvalidInput(f"{option} is {pair!r}; expected a pair such as {example}")
        if name in found:
            raise InvalidInput(f"{option} gives {name} twice")
        found[name] = value
    return found
