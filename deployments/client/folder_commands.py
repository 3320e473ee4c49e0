"""Commands that work on an index folder itself, most of them beside a running service."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from deployments.client.legacy_command import import_legacy
from deployments.client.options import (
    AsJson,
    IndexDir,
    absolute,
    index_folder,
    model_names,
    print_counts,
    print_json,
)
from deployments.client.printable import say
from deployments.client.progress_display import telling

if TYPE_CHECKING:
    from deployments.core.folders.salvage_export import SalvagedExport

SOMETHING_IS_LOST = 3
"""Exit code of an export that left rows out."""


def register(app: typer.Typer) -> None:
    """Add the commands to an app."""
    commands: dict[str, Callable[..., None]] = {
        "backup": backup,
        "restore": restore,
        "verify": verify,
        "export": export,
        "import": import_,
        "import-legacy": import_legacy,
    }
    for name, command in commands.items():
        app.command(name)(command)


def backup(
    dest: Annotated[Path, typer.Argument(metavar="DEST", help="A new or empty folder.")],
    index_dir: IndexDir = None,
    as_json: AsJson = False,
) -> None:
    """Copy the index while the service runs.

    The copy holds every write that was acknowledged before, is verified, and appears as a whole.
    """
    from deployments.core.folders.backup import back_up

    folder, target = index_folder(index_dir), absolute(dest)
    with telling(as_json) as tell:
        copied = back_up(folder, target, tell=tell)
    if as_json:
        print_json({"folder": folder, "backup": target, **asdict(copied)})
        return
    print_counts(copied.segments)
    for reason in copied.left_out:
        say(f"Left out, to be rebuilt from the store: {reason}")
    say(f"{folder} was copied to {target} ({copied.store_bytes:,} bytes) and verified.")


def restore(
    src: Annotated[Path, typer.Argument(metavar="SRC", help="What `backup` made.")],
    index_dir: IndexDir = None,
    force: Annotated[
        bool, typer.Option("--force", help="Move an index that is there aside.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Put a backup in place of an index that no service uses."""
    from deployments.core.folders.restore import restore as restore_backup

    folder, source = index_folder(index_dir), absolute(src)
    with telling(as_json) as tell:
        restored = restore_backup(source, folder, force=force, tell=tell)
    if as_json:
        print_json(
            {"folder": folder, "backup": source, "kept": restored.kept, **asdict(restored.copied)}
        )
        return
    print_counts(restored.copied.segments)
    if restored.kept:
        say(f"The index that was there before is in {restored.kept}.")
    say(f"{folder} is restored from {source}.")


def verify(
    directory: Annotated[
        Path | None,
        typer.Argument(metavar="DIR", help="An index folder or backup; else FAISS_INDEX_DIR."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Look for what is wrong with an index, and change nothing.

    Works beside a running service. The exit code is 1 if anything is wrong.
    """
    from deployments.core.folders.folder_verify import verify_folder

    folder = index_folder(directory)
    with telling(as_json) as tell:
        verdict = verify_folder(folder, tell)
    if as_json:
        print_json({"folder": folder, "problems": verdict.problems, **asdict(verdict)})
    else:
        if verdict.segments:
            print_counts(verdict.segments)
        for line in [*verdict.problems, *(f"Note: {note}" for note in verdict.notes)]:
            say(line)
        count = len(verdict.problems)
        say(
            f"{folder} has {count} problem{'s' if count > 1 else ''}."
            if count
            else f"{folder} is whole (model {model_names(verdict.models)})."
        )
    if verdict.problems:
        raise typer.Exit(1)


def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write.")],
    form: Annotated[
        Literal["jsonl", "parquet"] | None,
        typer.Option(
            "--format",
            help="Parquet if the name ends in .parquet, else JSON Lines.",
            show_default=False,
        ),
    ] = None,
    salvage: Annotated[
        bool,
        typer.Option("--salvage", help="Of a damaged index: write what is provably intact."),
    ] = False,
    index_dir: IndexDir = None,
    as_json: AsJson = False,
) -> None:
    """Write all segments to a file.

    With ids, texts, times, metadata, vectors and the model, so that `import` needs no encoding.
    The exit code is 1 if nothing was written, and with --salvage 3 if something is lost.
    """
    from deployments.core.folders.export import Format, export_folder
    from deployments.core.folders.salvage_export import export_salvage

    folder, path = index_folder(index_dir), absolute(file)
    chosen = Format(form) if form else None
    if salvage:
        with telling(as_json) as tell:
            salvaged = export_salvage(folder, path, chosen, tell=tell)
        _report_salvage(folder, path, salvaged, as_json)
        return
    with telling(as_json) as tell:
        exported = export_folder(folder, path, chosen, tell=tell)
    if as_json:
        print_json({"folder": folder, "file": path, **asdict(exported)})
        return
    print_counts(exported.segments)
    say(f"{folder} was exported to {path} ({exported.file_bytes:,} bytes).")


def _report_salvage(folder: Path, path: Path, done: "SalvagedExport", as_json: bool) -> None:
    exported, salvage = done.exported, done.salvage
    if as_json:
        print_json({"folder": folder, "file": path, **asdict(exported), "salvage": asdict(salvage)})
    else:
        print_counts(exported.segments)
        say(salvage.summary)
        say(f"What is intact of {folder} was exported to {path}.")
    if salvage.lost_rows or salvage.missing_commits or not salvage.lost_are_counted:
        raise typer.Exit(SOMETHING_IS_LOST)


def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `export` wrote.")],
    index_dir: IndexDir = None,
    as_json: AsJson = False,
) -> None:
    """Store what `export` wrote, with its vectors.

    In a new index folder, or in addition to one that no service uses.
    """
    from deployments.core.folders.export import import_file

    folder, path = index_folder(index_dir), absolute(file)
    with telling(as_json) as tell:
        imported = import_file(path, folder, tell=tell)
    if as_json:
        print_json({"folder": folder, "file": path, **asdict(imported)})
        return
    stored = imported.stored
    say(
        f"{path}: {stored.records} segments of model {model_names(imported.models)} are in "
        f"{folder}, {stored.changed} of them new or changed."
    )
