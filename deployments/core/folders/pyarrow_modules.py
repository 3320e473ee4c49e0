"""pyarrow, which only Parquet needs."""

from typing import Any

from deployments.core.errors import InvalidInput


def import_pyarrow() -> tuple[Any, Any]:
    """The modules pyarrow and pyarrow.parquet. Raises InvalidInput if they aren't installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise InvalidInput(
            "Parquet needs pyarrow: pip install 'embeddings-service[parquet]', or use JSON Lines"
        ) from error
    return pyarrow, pyarrow.parquet
