"""The command that moves over from the service that this one replaces."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deployments.client.options import AsJson, absolute, print_json
from deployments.client.printable import printable, say
from deployments.client.progress_display import telling

if TYPE_CHECKING:
    from deployments.core.folders.legacy_import import ImportedLegacy
    from deployments.core.folders.legacy_types import SampleCheck
    from deployments.core.settings import Settings

DEFAULT_CHECK = 20
"""Texts of each type that are encoded anew."""

_SAMPLES_AT_ONCE = 16


def import_legacy(
    directory: Annotated[
        Path | None,
        typer.Argument(metavar="DIR", help="The old service's folder; else FAISS_INDEX_DIR."),
    ] = None,
    into: Annotated[
        Path | None,
        typer.Option(
            help="The new index folder; FAISS_INDEX_DIR if not given.", show_default=False
        ),
    ] = None,
    skip_bad_rows: Annotated[
        bool, typer.Option("--skip-bad-rows", help="Report rows that can't be taken, and go on.")
    ] = False,
    check: Annotated[
        int | None,
        typer.Option(
            min=0,
            show_default=str(DEFAULT_CHECK),
            help="Texts of each type to encode anew, to notice vectors of another model; 0: none.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Move over from the old service, with its vectors.

    Reads transcript_index.faiss, transcript_metadata.pkl and so on. EMBEDDING_MODEL must be the
    model that made them. Where the old files lie in the new index folder, they end up in its
    subfolder `legacy`.
    """
    from deployments.core.encoding.model_identity import read_identity
    from deployments.core.encoding.model_source import find_model
    from deployments.core.errors import SettingsError
    from deployments.core.folders.legacy_import import import_legacy as import_folder
    from deployments.core.settings import Settings

    settings = Settings.load()
    if settings.embedding_precision != "float32":
        raise SettingsError(
            f"EMBEDDING_PRECISION is {settings.embedding_precision}, but the old service's vectors "
            "are float32 and can't be compared with others; import them with "
            "EMBEDDING_PRECISION=float32"
        )
    if len(names := set(settings.models().values())) > 1:
        raise SettingsError(
            f"the indices have several models ({', '.join(sorted(names))}), but the old service "
            "had one for all; import with EMBEDDING_MODEL alone"
        )
    folder = absolute(into) if into else settings.faiss_index_dir
    source = absolute(directory) if directory else settings.faiss_index_dir
    (name,) = names
    model = read_identity(name, find_model(name))
    sample = _sample_check(settings, name, check)
    with telling(as_json) as tell:
        imported = import_folder(
            source, folder, model, skip_bad_rows=skip_bad_rows, check=sample, tell=tell
        )
    if as_json:
        print_json({"folder": folder, "model": asdict(model), **asdict(imported)})
    else:
        _print_imported(imported, folder, model.name)


def _sample_check(settings: "Settings", model: str, count: int | None) -> "SampleCheck | None":
    """A check with a model; None if it isn't asked for and can't be loaded."""
    from deployments.core.encoding.text_encoder import load_text_encoder
    from deployments.core.errors import ModelError
    from deployments.core.folders.legacy_types import SampleCheck
    from deployments.core.segments import Vectors

    if count == 0:
        return None
    try:
        encoder = load_text_encoder(
            model,
            device=settings.embedding_device,
            backend=settings.embedding_backend,
            threads=settings.embeddings_encoder_threads,
            cache_dir=settings.embeddings_cache_dir,
        )
    except ModelError as error:
        if count is not None:
            raise
        say(f"Vectors are not compared with the model: {error.detail}", err=True)
        return None

    def encode(texts: Sequence[str]) -> Vectors:
        import numpy as np

        tokens = encoder.tokenize(texts, "document")
        starts = range(0, len(tokens), _SAMPLES_AT_ONCE)
        return np.concatenate(
            [encoder.encode(tokens[start : start + _SAMPLES_AT_ONCE]) for start in starts]
        )

    return SampleCheck(encode, DEFAULT_CHECK if count is None else count)


def _print_imported(imported: "ImportedLegacy", folder: Path, model: str) -> None:
    from rich.console import Console
    from rich.table import Table

    if not imported.types:
        say(f"{folder} was imported already; its old files are in {imported.legacy_folder}.")
        return
    types = imported.types.values()
    table = Table("", *(kind.value for kind in imported.types))
    facts: dict[str, Sequence[object]] = {
        "index": [each.index for each in types],
        "rows": [each.rows for each in types],
        "imported": [each.imported for each in types],
        "repeated, the last one taken": [each.duplicates for each in types],
        "without metadata, left out": [each.without_metadata for each in types],
        "bad, skipped": [len(each.skipped) for each in types],
        "without text": [each.without_text for each in types],
        "compared with the model": [each.checked for each in types],
        "lowest cosine": [
            "-" if each.lowest_cosine is None else f"{each.lowest_cosine:.4f}" for each in types
        ],
    }
    for label, values in facts.items():
        table.add_row(label, *(printable(value) for value in values))
    Console().print(table)
    for kind, each in imported.types.items():
        for bad in each.skipped:
            say(f"Skipped {kind} row {bad.row}: {bad.reason}")
    say(f"Imported into {folder} as vectors of {model}.")
    say(f"The old files are in {imported.legacy_folder}.")
