"""The encoders that an Ingress calls: those on CPUs and, where there are any, those on GPUs."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from ray.serve.handle import DeploymentHandle, DeploymentResponse

from deployments.calls import call
from deployments.core.errors import NotReady, Overloaded

logger = logging.getLogger(__name__)

CPU_ENCODER = "Encoder"
GPU_ENCODER = "GpuEncoder"
"""The deployments' names."""

EMBEDDINGS_APP = "embeddings"
"""Their application's name in the configuration file."""

REST_S = 30.0
"""Serve keeps a GPU encoder that nothing calls for at least twice as long (`scale_down_s`)."""

Send = Callable[[DeploymentHandle], DeploymentResponse]


class Encoders:
    """Calls an encoder on a GPU if one runs and has room, else one on a CPU.

    Every call has to be repeatable. Serve starts GPU encoders on demand and stops them when they
    rest. Nothing waits for a start: a call of its own, which waits until one runs, is the demand,
    and until it is answered all others go to the CPUs. Serves one event loop.
    """

    def __init__(
        self,
        cpu: DeploymentHandle,
        gpu: DeploymentHandle | None,
        *,
        timeout_s: float,
        rest_s: float = REST_S,
    ) -> None:
        self._cpu = cpu
        self._gpu = gpu
        self._timeout_s = timeout_s
        self._rest_s = rest_s
        self._answered_at: float | None = None
        self._summons: asyncio.Task[None] | None = None

    async def call(self, send: Send) -> Any:
        """The answer of an encoder. Raises what `calls.call` raises."""
        if self._gpu is not None and self._gpu_runs():
            gpu = self._gpu
            try:
                answer = await call(
                    lambda: send(gpu),
                    what="the encoder on a GPU",
                    timeout_s=self._timeout_s,
                    patience_s=0,
                )
                self._answered()
                return answer
            except Overloaded:
                self._answered()
            except NotReady as error:
                self._answered_at = None
                logger.info("The CPUs take over from the encoder on a GPU: %s", error)
        return await self.call_cpu(send)

    async def call_cpu(self, send: Send, *, timeout_s: float | None = None) -> Any:
        """The answer of an encoder on a CPU: for what isn't work that a GPU should start for."""
        return await call(
            lambda: send(self._cpu), what="the encoder", timeout_s=timeout_s or self._timeout_s
        )

    def _gpu_runs(self) -> bool:
        """Whether one answered a moment ago; if not, one is asked for."""
        now = asyncio.get_running_loop().time()
        if self._answered_at is not None and now - self._answered_at < self._rest_s:
            return True
        self._answered_at = None
        if self._summons is None:
            self._summons = asyncio.get_running_loop().create_task(self._summon())
        return False

    def _answered(self) -> None:
        self._answered_at = asyncio.get_running_loop().time()

    async def _summon(self) -> None:
        gpu = self._gpu
        assert gpu is not None
        try:
            # As long as it takes: without a GPU in the cluster, for ever.
            await gpu.models.remote()
        except Exception as error:
            logger.warning("No encoder on a GPU: %s", error)
            await asyncio.sleep(self._rest_s)
        else:
            self._answered()
            logger.info("An encoder on a GPU is there and goes first")
        finally:
            self._summons = None
