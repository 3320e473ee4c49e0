"""`embeddings-service`: the command line. Each command imports what it needs when it runs."""

from typing import Any

import typer
from typer.core import TyperGroup

from deployments.client import (
    backfill_command,
    bench_command,
    embed_command,
    folder_commands,
    migrate_command,
    search_command,
    serve_command,
    service_commands,
)
from deployments.client.errors import EmbeddingsError, Forbidden, Unauthorized, Unreachable
from deployments.client.printable import say
from deployments.core.errors import ServiceError

SERVICE_PACKAGES = ("faiss", "orjson", "psutil", "ray", "sentence_transformers", "torch", "yaml")
"""What is only installed with the service, which some commands need."""

NOT_REACHABLE = 4
"""Exit code of commands that nobody answered."""

HELP = """Work with the embeddings service and with its index folders.

EMBEDDINGS_SERVICE_URL and EMBEDDINGS_API_KEY say where the service is, and with which key. Exit
codes: 0 done, 1 failed or refused, 2 wrong usage, 4 no service answers, 130 ended by Ctrl-C;
`backfill` and `export` have further ones."""


class _Commands(TyperGroup):
    """Commands whose errors are a message and an exit code of their own."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that the arguments name."""
        code = 1
        try:
            return super().invoke(ctx)
        except EmbeddingsError as error:
            notes = "".join(f"\n{note}." for note in getattr(error, "__notes__", ()))
            message = f"{error.detail}{notes}{_advice(error)}"
            code = NOT_REACHABLE if isinstance(error, Unreachable) else 1
        except ServiceError as error:
            message = error.detail
        except ModuleNotFoundError as error:
            if error.name not in SERVICE_PACKAGES:
                raise
            message = (
                f"{ctx.invoked_subcommand} needs {error.name}, which isn't installed here: "
                "pip install 'embeddings-service[cpu]'"
            )
        except UnicodeDecodeError as error:
            message = f"what should be read isn't UTF-8: {error}"
        except BrokenPipeError:
            # Whoever reads the output has enough.
            raise
        except OSError as error:
            message = str(error)
        say(f"Error: {message}", err=True)
        raise typer.Exit(code)


def _advice(error: EmbeddingsError) -> str:
    """What to do about an error, on lines of its own."""
    if isinstance(error, Unreachable):
        return (
            "\nStart the service with `embeddings-service serve`, or say where it is: --url or "
            "EMBEDDINGS_SERVICE_URL."
        )
    if isinstance(error, Unauthorized):
        return "\nSet EMBEDDINGS_API_KEY to a key of the service, or give it as --api-key."
    if isinstance(error, Forbidden):
        return "\nThis needs a key of the service's EMBEDDINGS_API_KEY, not a read-only one."
    return ""


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help=HELP,
)
for module in (
    serve_command,
    service_commands,
    search_command,
    embed_command,
    backfill_command,
    bench_command,
    migrate_command,
    folder_commands,
):
    module.register(app)


if __name__ == "__main__":
    app()
