"""Builds the Serve applications: the only place that binds deployments and sets their options."""

from typing import Any

from ray import serve
from ray.serve import Application, Deployment
from ray.serve.handle import DeploymentHandle

from deployments.backend import Ingress
from deployments.core.settings import Settings
from deployments.encoder import Encoder
from deployments.index import Index

INDEX_APP = "index"

# Logical CPUs for Ray's scheduler, small enough that all three fit on one core. How many threads
# an encoder really uses is EMBEDDINGS_ENCODER_THREADS.
INGRESS_CPUS = 0.1
INDEX_CPUS = 0.2
ENCODER_CPUS = 0.5

# An encoder with more calls than this at work and waiting gets company.
ENCODER_TARGET_CALLS = 4

# Serve looks this often whether a replica that shuts down is idle; its default adds 2 s to Ctrl-C.
GRACEFUL_SHUTDOWN_WAIT_LOOP_S = 0.2
GRACEFUL_SHUTDOWN_TIMEOUT_S = 5
# A new deployment replaces Ingress and Encoder together: the old Ingress has to outlive the start
# of the new Encoder, or whoever waits in it gets Serve's bare 500.
INGRESS_SHUTDOWN_TIMEOUT_S = 30.0
# A dead replica is noticed and replaced after about this long.
HEALTH_CHECK_PERIOD_S = 1


def index(args: dict[str, Any]) -> Application:
    """The application `index`: one replica, the writer of FAISS_INDEX_DIR."""
    settings = Settings.load(args)
    return _deployment(Index, max_ongoing_requests=512, cpus=INDEX_CPUS).bind(settings)


def embeddings(args: dict[str, Any]) -> Application:
    """The application `embeddings`: Ingress and Encoder, stateless."""
    settings = Settings.load(args)
    index_handle = DeploymentHandle("Index", INDEX_APP)
    encoder = _deployment(Encoder, max_ongoing_requests=64, cpus=ENCODER_CPUS)
    if settings.embeddings_workers > 1:
        encoder = encoder.options(
            num_replicas="auto",
            autoscaling_config={
                "min_replicas": 1,
                "max_replicas": settings.embeddings_workers,
                "target_ongoing_requests": ENCODER_TARGET_CALLS,
                "upscale_delay_s": 3,
                "downscale_delay_s": 60,
            },
        )
    ingress = _deployment(Ingress, max_ongoing_requests=2048, cpus=INGRESS_CPUS).options(
        graceful_shutdown_timeout_s=min(settings.embeddings_timeout_s, INGRESS_SHUTDOWN_TIMEOUT_S)
    )
    return ingress.bind(settings, encoder.bind(settings, index_handle), index_handle)


def _deployment(kind: type, *, max_ongoing_requests: int, cpus: float) -> Deployment:
    return serve.deployment(kind).options(
        name=kind.__name__,
        num_replicas=1,
        max_ongoing_requests=max_ongoing_requests,
        ray_actor_options={"num_cpus": cpus},
        health_check_period_s=HEALTH_CHECK_PERIOD_S,
        graceful_shutdown_wait_loop_s=GRACEFUL_SHUTDOWN_WAIT_LOOP_S,
        graceful_shutdown_timeout_s=GRACEFUL_SHUTDOWN_TIMEOUT_S,
    )
