"""Which models the settings name, and which vectors those make."""

import hashlib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from deployments.core.errors import SettingsError
from deployments.core.own_vectors import MOST_NUMBERS
from deployments.core.segments import EmbeddingType, ModelIdentity, Models

if TYPE_CHECKING:
    from deployments.core.encoding.text_encoder import Precision

EXTERNAL = "external:"
"""Begins the name of a model that runs elsewhere: `external:512` or `external:clip-b32:512`."""

_EXTERNAL_NAME = re.compile(r"external:(?:[A-Za-z0-9][\w./-]*:)?([1-9]\d{0,3})", re.ASCII)


def is_external(name: str) -> bool:
    """Whether an index with this model gets its vectors from callers only."""
    return name.startswith(EXTERNAL)


def external_identity(name: str) -> ModelIdentity:
    """The identity of a model that runs elsewhere. Raises SettingsError for a wrong name."""
    match = _EXTERNAL_NAME.fullmatch(name)
    if match is None or int(match[1]) > MOST_NUMBERS:
        raise SettingsError(
            f"the model is {name!r}; one that runs elsewhere is written as external:512 or "
            f"external:NAME:512, with the number of dimensions, 1 to {MOST_NUMBERS}, at the end"
        )
    return ModelIdentity(name, hashlib.sha256(name.encode()).hexdigest(), int(match[1]))


def read_models(names: Mapping[EmbeddingType, str], precision: "Precision") -> Models:
    """The identity of each type's model; each is read once. Raises ModelError, SettingsError."""
    read = {name: _identity(name, precision) for name in dict.fromkeys(names.values())}
    return {kind: read[name] for kind, name in names.items()}


def _identity(name: str, precision: "Precision") -> ModelIdentity:
    if is_external(name):
        return external_identity(name)
    from deployments.core.encoding.model_identity import read_identity, takes_images, with_precision
    from deployments.core.encoding.model_source import find_model

    folder = find_model(name)
    identity = read_identity(name, folder)
    return identity if takes_images(folder) else with_precision(identity, precision)
