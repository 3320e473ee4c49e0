"""Encoding with the Encoders from the threads of another deployment."""

import asyncio
import threading
from collections.abc import Sequence
from itertools import chain

import numpy as np
from ray.serve.handle import DeploymentHandle

from deployments.core.encoding.batcher import Encoded
from deployments.core.encoding.text_encoder import TextKind
from deployments.core.errors import NotReady
from deployments.core.segments import ModelIdentity
from deployments.core.settings import Settings
from deployments.encoders import CPU_ENCODER, EMBEDDINGS_APP, GPU_ENCODER, Encoders

TEXTS_PER_CALL = 32
"""A batch goes to several Encoders, where there are several."""
LOOK_S = 0.2


class RemoteEncoding:
    """Calls the Encoders with texts and a model, behind all else that these do.

    It may be called in any thread but that of `loop`, the replica's own event loop, which makes the
    calls. The Encoders' application is started after the Index, so it is looked for when it is
    needed.
    """

    def __init__(self, settings: Settings, loop: asyncio.AbstractEventLoop) -> None:
        self._timeout_s = settings.embeddings_timeout_s
        self._has_gpus = settings.embeddings_gpu_workers > 0
        self._encoders: Encoders | None = None
        self._stopping = threading.Event()
        self._loop = loop

    def __call__(self, model: ModelIdentity, texts: Sequence[str], kind: TextKind) -> Encoded:
        """The texts' vectors. Raises a ServiceError, NotReady once it is to stop."""
        if self._stopping.is_set():
            raise _stopped()
        encoding = asyncio.run_coroutine_threadsafe(self._encode(model, texts, kind), self._loop)
        while not encoding.done():
            if self._stopping.wait(LOOK_S):
                encoding.cancel()
                raise _stopped()
        return encoding.result()

    def stop(self) -> None:
        """Give up what is being encoded, and refuse what comes."""
        self._stopping.set()

    async def _encode(self, model: ModelIdentity, texts: Sequence[str], kind: TextKind) -> Encoded:
        parts: list[Encoded] = await asyncio.gather(
            *(
                self._call(model, texts[start : start + TEXTS_PER_CALL], kind)
                for start in range(0, len(texts), TEXTS_PER_CALL)
            )
        )
        return Encoded(
            np.concatenate([part.vectors for part in parts]),
            tuple(chain.from_iterable(part.truncated for part in parts)),
            tuple(chain.from_iterable(part.tokens for part in parts)),
        )

    async def _call(self, model: ModelIdentity, texts: Sequence[str], kind: TextKind) -> Encoded:
        if self._encoders is None:
            gpu = DeploymentHandle(GPU_ENCODER, EMBEDDINGS_APP) if self._has_gpus else None
            self._encoders = Encoders(
                DeploymentHandle(CPU_ENCODER, EMBEDDINGS_APP), gpu, timeout_s=self._timeout_s
            )
        encoded: Encoded = await self._encoders.call(
            lambda encoder: encoder.encode_anew.remote(model, texts, kind)
        )
        return encoded


def _stopped() -> NotReady:
    return NotReady("the index is shutting down")
