"""Texts of others for a terminal, which would obey the control characters in them."""

import typer

_CONTROLS = {*range(0x20), 0x7F, *range(0x80, 0xA0)} - {ord("\n"), ord("\t")}
_TABLE = dict.fromkeys([*_CONTROLS, *range(0xD800, 0xE000)], "\N{REPLACEMENT CHARACTER}")


def printable(text: object) -> str:
    """A text of the same length in which nothing moves the cursor, sets a title or a colour.

    Control characters (C0, C1 and DEL) but line ends and tabs are replaced, and halves of
    characters, which can't be printed.
    """
    return str(text).translate(_TABLE)


def say(text: object, *, err: bool = False) -> None:
    """Print a line for people; `err` for one that is no part of the result."""
    typer.echo(printable(text), err=err)
