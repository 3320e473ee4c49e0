"""The models that an Encoder needs: those that the index has, whenever these change."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from deployments.core.configured_models import is_external
from deployments.core.encoding.loaded_models import LoadedModel, LoadedModels
from deployments.core.errors import ModelError, NotReady, OtherModel
from deployments.core.segments import ModelIdentity, Models

logger = logging.getLogger(__name__)

T = TypeVar("T")

IDLE_S = 600.0
"""How long a model that the index doesn't have stays in memory after its last use."""
MOST_CHANGES = 3


class FollowedModels:
    """Keeps the models of the index loaded, and others for as long as they are in use.

    `ask` gives the models that the index has now. Serves one event loop.
    """

    def __init__(
        self,
        loaded: LoadedModels,
        models: Models,
        ask: Callable[[], Awaitable[Models]],
        idle_s: float = IDLE_S,
    ) -> None:
        """`models` are those that are believed to be the index', and loaded."""
        self.models = models
        self._loaded = loaded
        self._ask = ask
        self._idle_s = idle_s
        self._changing = asyncio.Lock()
        self._used_at: dict[str, float] = {}
        self._sweep_at: asyncio.TimerHandle | None = None
        self._drops: set[asyncio.Task[None]] = set()

    @property
    def identities(self) -> tuple[ModelIdentity, ...]:
        """The models that encode for the index, each once."""
        return tuple(dict.fromkeys(filter(_is_here, self.models.values())))

    async def with_models(self, work: Callable[[Models], Awaitable[T]]) -> T:
        """What `work` returns for the models of the index.

        It is called again where it raised OtherModel, once those that the index has by now are
        loaded. Raises what it raises, ModelError, and what `ask` raises.
        """
        for _ in range(MOST_CHANGES):
            models = self.models
            try:
                return await work(models)
            except OtherModel:
                await self._follow(models)
        raise NotReady("the model is being changed again and again; try again in a moment")

    async def named(self, name: str) -> LoadedModel:
        """A model of the index by its name. Raises NotReady if the index doesn't have it."""
        if all(model.name != name for model in self.identities):
            await self._follow(self.models)
        return self._loaded.use(name)

    async def borrowed(self, model: ModelIdentity) -> LoadedModel:
        """Any model, loaded now unless it was before. Raises ModelError."""
        async with self._changing:
            loaded = await self._load(model)
        self._used(model.name)
        return loaded

    async def _follow(self, seen: Models) -> None:
        async with self._changing:
            if self.models is not seen:
                return
            present = await self._ask()
            for model in filter(_is_here, present.values()):
                await self._load(model)
            for former in filter(_is_here, seen.values()):
                self._used(former.name)
            if present != seen:
                names = ", ".join(dict.fromkeys(model.name for model in present.values()))
                logger.info("Encoding for an index with vectors of %s", names)
            self.models = dict(present)

    async def _load(self, model: ModelIdentity) -> LoadedModel:
        loaded = await asyncio.to_thread(self._loaded.add, model.name)
        if not loaded.identity.makes_the_same_as(model):
            raise ModelError(
                f"the model {model.name} makes other vectors here than where its name was given "
                f"(fingerprints {loaded.identity.fingerprint[:12]} and {model.fingerprint[:12]}): "
                "its files were changed; restart the service, or give the changed model a name of "
                "its own"
            )
        return loaded

    def _used(self, name: str) -> None:
        self._used_at[name] = asyncio.get_running_loop().time()
        self._sweep_later()

    def _sweep_later(self) -> None:
        if self._sweep_at is None:
            loop = asyncio.get_running_loop()
            self._sweep_at = loop.call_later(self._idle_s, self._sweep)

    def _sweep(self) -> None:
        self._sweep_at = None
        present = {model.name for model in self.models.values()}
        now = asyncio.get_running_loop().time()
        for name, used_at in list(self._used_at.items()):
            if name in present:
                del self._used_at[name]
            elif now - used_at >= self._idle_s:
                del self._used_at[name]
                logger.info("The model %s isn't used any more", name)
                drop = asyncio.get_running_loop().create_task(self._loaded.drop(name))
                self._drops.add(drop)
                drop.add_done_callback(self._drops.discard)
        if self._used_at:
            self._sweep_later()


def _is_here(model: ModelIdentity) -> bool:
    return not is_external(model.name)
