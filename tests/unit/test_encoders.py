"""Which encoder a call goes to: one on a GPU if it runs and has room, else one on a CPU."""

import asyncio

import pytest
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from deployments.core.errors import InvalidInput
from deployments.encoders import Encoders


class Answer:
    """A DeploymentResponse that is there when its deployment lets it be."""

    def __init__(self, pool):
        self._pool = pool

    def __await__(self):
        return self._answer().__await__()

    async def _answer(self):
        await self._pool.runs.wait()
        if self._pool.error:
            raise self._pool.error
        return self._pool.name

    def cancel(self):
        pass


class Pool:
    """A DeploymentHandle of one method, which answers with the pool's name."""

    def __init__(self, name, runs=True):
        self.name = name
        self.calls = 0
        self.error = None
        self.runs = asyncio.Event()
        if runs:
            self.runs.set()

    @property
    def models(self):
        return self

    def remote(self):
        self.calls += 1
        return Answer(self)


def send(pool):
    return pool.models.remote()


def in_loop(test):
    return lambda: asyncio.run(test())


def encoders_of(cpu, gpu, rest_s=30.0):
    return Encoders(cpu, gpu, timeout_s=5, rest_s=rest_s)


async def settle():
    for _ in range(10):
        await asyncio.sleep(0)


@in_loop
async def test_without_gpus_every_call_goes_to_the_cpus():
    encoders = encoders_of(Pool("cpu"), None)
    assert [await encoders.call(send) for _ in range(3)] == ["cpu"] * 3


@in_loop
async def test_nothing_waits_for_a_gpu_that_never_comes():
    cpu, gpu = Pool("cpu"), Pool("gpu", runs=False)
    encoders = encoders_of(cpu, gpu)
    for _ in range(5):
        assert await encoders.call(send) == "cpu"
        await settle()
    assert gpu.calls == 1, "one call waits for a GPU, and asks Serve for it"


@in_loop
async def test_the_gpu_goes_first_once_it_runs():
    gpu = Pool("gpu", runs=False)
    encoders = encoders_of(Pool("cpu"), gpu)
    await encoders.call(send)
    gpu.runs.set()
    await settle()
    assert [await encoders.call(send) for _ in range(3)] == ["gpu"] * 3


@in_loop
async def test_what_the_gpu_has_no_room_for_goes_to_the_cpus():
    gpu = Pool("gpu")
    encoders = encoders_of(Pool("cpu"), gpu)
    await encoders.call(send)
    await settle()
    gpu.error = BackPressureError(num_queued_requests=16, max_queued_requests=16)
    assert await encoders.call(send) == "cpu"
    gpu.error = None
    assert await encoders.call(send) == "gpu"


@in_loop
async def test_after_a_gpu_is_gone_it_is_asked_for_again():
    gpu = Pool("gpu")
    encoders = encoders_of(Pool("cpu"), gpu)
    await encoders.call(send)
    await settle()
    gpu.error = DeploymentUnavailableError("gone")
    assert await encoders.call(send) == "cpu"
    gpu.error = None
    assert await encoders.call(send) == "cpu"
    await settle()
    assert await encoders.call(send) == "gpu"


@in_loop
async def test_one_that_rested_long_is_asked_before_it_is_relied_upon():
    gpu = Pool("gpu")
    encoders = encoders_of(Pool("cpu"), gpu, rest_s=0.01)
    await encoders.call(send)
    await settle()
    await asyncio.sleep(0.02)
    gpu.runs.clear()
    assert await encoders.call(send) == "cpu"


@in_loop
async def test_an_error_of_the_request_is_no_reason_to_try_another_encoder():
    cpu, gpu = Pool("cpu"), Pool("gpu")
    encoders = encoders_of(cpu, gpu)
    await encoders.call(send)
    await settle()
    gpu.error = InvalidInput("no such thing")
    with pytest.raises(InvalidInput, match="no such thing"):
        await encoders.call(send)
    assert cpu.calls == 1
