"""`embeddings-service`: the command line. Each command imports what it needs when it runs."""

from typing import Any

import typer
from typer.core import TyperGroup

from deployments.client import backfill_command, folder_commands
from deployments.core.errors import ServiceError

SERVICE_PACKAGES = ("faiss", "orjson", "psutil", "ray", "sentence_transformers", "torch", "yaml")
"""What is only installed with the service, which some commands need."""


class _Commands(TyperGroup):
    """Commands whose errors are a message and exit code 1; wrong usage has exit code 2."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that the arguments name."""
        try:
            return super().invoke(ctx)
        except ServiceError as error:
            message = error.detail
        except ModuleNotFoundError as error:
            if error.name not in SERVICE_PACKAGES:
                raise
            message = (
                f"{ctx.invoked_subcommand} needs {error.name}, which isn't installed here: "
                "pip install 'embeddings-service[cpu]'"
            )
        except OSError as error:
            message = str(error)
        typer.echo(f"Error: {message}", err=True)
        raise typer.Exit(1)


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Work with the embeddings service and with its index folders.",
)
folder_commands.register(app)
backfill_command.register(app)


if __name__ == "__main__":
    app()
