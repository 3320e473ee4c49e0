"""A backfill inside the cluster, through Serve handles to the running service's own Encoder.

    ray job submit --working-dir . -- python -m deployments.jobs.backfill SOURCE...

Options, output and exit codes are those of `embeddings-service backfill`; `ray job submit` itself
has exit code 1 for any other than 0. Local paths are those of the node that runs the job, where
`--working-dir` is a copy: name the quarantine and the progress file by their full paths.

Nothing here waits for quiet hours: the Encoder takes queries before bulk.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import ray
import typer
from ray import serve
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from deployments.backfill.destination import outcome
from deployments.backfill.sender import FIRST_PATIENCE_S
from deployments.backfill.tally import Tally
from deployments.client.backfill_command import OF_HTTP, Way
from deployments.client.cli import app
from deployments.core.errors import NotReady, ServiceError
from deployments.core.segments import Upsert, UpsertResult
from deployments.core.settings import Settings
from deployments.encoders import CPU_ENCODER, EMBEDDINGS_APP, GPU_ENCODER, Encoders
from deployments.metrics import BackfillMetrics, Publisher

CALL_TIMEOUT_S = 300.0
PUBLISH_PERIOD_S = 2.0


class EncoderDestination:
    """A Destination that calls an encoder, which passes vectors on to the Index."""

    def __init__(self, encoders: Encoders) -> None:
        self._encoders = encoders

    async def embed(self, upsert: Upsert) -> UpsertResult:
        """Store segments durably; raises as Destination says."""
        try:
            result: UpsertResult = await self._encoders.call(
                lambda encoder: encoder.embed.remote(upsert)
            )
            return result
        except ServiceError as error:
            raise outcome(error) from error


@asynccontextmanager
async def by_handle(tally: Tally) -> AsyncIterator[EncoderDestination]:
    """The service of this cluster; the tally's numbers are published as metrics.

    With Serve's fast transport a handle works on an event loop only, so it is made here. Raises
    NotReady if Serve doesn't run.
    """
    ray.init(log_to_driver=False, logging_level="warning")
    encoders = await _encoders()
    metrics = BackfillMetrics()
    publisher = Publisher(lambda: metrics.publish(tally), PUBLISH_PERIOD_S)
    try:
        yield EncoderDestination(encoders)
    finally:
        publisher.close()
        metrics.publish(tally)


async def _encoders() -> Encoders:
    """The service's own, as soon as Serve knows them."""
    for _ in range(int(FIRST_PATIENCE_S)):
        cpu = _handle(CPU_ENCODER)
        if cpu is not None:
            return Encoders(cpu, _handle(GPU_ENCODER), timeout_s=CALL_TIMEOUT_S)
        await asyncio.sleep(1)
    raise NotReady("the service doesn't run in this cluster; `serve status` tells what does")


def _handle(deployment: str) -> DeploymentHandle | None:
    try:
        return serve.get_deployment_handle(deployment, EMBEDDINGS_APP)
    except (RayServeException, KeyError):
        return None


def main(arguments: Sequence[str]) -> None:
    """Run the command `backfill` without what only the way by HTTP has, and exit."""
    commands = typer.main.get_group(app)
    command = commands.commands["backfill"]
    command.params = [param for param in command.params if param.name not in OF_HTTP]
    way = Way(by_handle, "cluster", Settings.load().embeddings_max_text_chars)
    commands.main(["backfill", *arguments], prog_name="python -m deployments.jobs", obj=way)


if __name__ == "__main__":
    main(sys.argv[1:])
