"""Builds the Serve applications: the only place that binds deployments and sets their options."""

from typing import Any

from ray import serve
from ray.serve import Application, Deployment
from ray.serve.config import AutoscalingConfig
from ray.serve.handle import DeploymentHandle

from deployments.core.settings import Settings
from deployments.encoder import Encoder
from deployments.encoders import GPU_ENCODER, REST_S
from deployments.index import Index
from deployments.ingress import Ingress
from deployments.scaling import scale_encoders, scale_ingresses

INDEX_APP = "index"

# Logical CPUs for Ray's scheduler, small enough that these and an encoder fit on one core.
INGRESS_CPUS = 0.1
INDEX_CPUS = 0.2
# An encoder on a GPU is placed by its GPU.
GPU_ENCODER_CPUS = 0.5

# More than they take by their own limits, which tell a client why. A call that Serve keeps waiting
# would also hold up those that go first in the Encoder.
INGRESS_REQUESTS = 8192
ENCODER_CALLS = 4096

# At work, and waiting in each caller; beyond both a caller is refused.
INDEX_CALLS = 512

# At work and waiting; beyond it a call goes to an encoder on a CPU.
GPU_ENCODER_CALLS = 16

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
    deployment = _deployment(Index, max_ongoing_requests=INDEX_CALLS, cpus=INDEX_CPUS)
    deployment = deployment.options(max_queued_requests=INDEX_CALLS)
    if settings.faiss_index_resource is not None:
        # All of it, so that one with a value of 1 also keeps a second replica from starting.
        options = {"num_cpus": INDEX_CPUS, "resources": {settings.faiss_index_resource: 1}}
        deployment = deployment.options(ray_actor_options=options)
    return deployment.bind(settings)


def embeddings(args: dict[str, Any]) -> Application:
    """The application `embeddings`: Ingress and Encoder, stateless."""
    settings = Settings.load(args)
    scale_down_s = settings.embeddings_scale_down_s
    index_handle = DeploymentHandle("Index", INDEX_APP)
    encoder = _scaled(
        _deployment(
            Encoder, max_ongoing_requests=ENCODER_CALLS, cpus=settings.embeddings_encoder_cpus
        ),
        scale_encoders(least=1, most=settings.embeddings_workers, scale_down_s=scale_down_s),
    )
    if settings.embedding_device == "cuda":
        encoder = encoder.options(ray_actor_options={"num_cpus": GPU_ENCODER_CPUS, "num_gpus": 1})
    gpu_encoder = None
    cpu_settings = settings
    if settings.embeddings_gpu_workers:
        gpu_encoder = _gpu_encoder(settings).bind(settings, index_handle)
        # Ray doesn't hide a machine's GPUs from a replica that has asked for none.
        cpu_settings = settings.model_copy(update={"embedding_device": "cpu"})
    ingress = _scaled(
        _deployment(Ingress, max_ongoing_requests=INGRESS_REQUESTS, cpus=INGRESS_CPUS),
        scale_ingresses(most=settings.embeddings_ingress_workers, scale_down_s=scale_down_s),
    ).options(
        graceful_shutdown_timeout_s=min(settings.embeddings_timeout_s, INGRESS_SHUTDOWN_TIMEOUT_S)
    )
    cpu_encoder = encoder.bind(cpu_settings, index_handle)
    return ingress.bind(settings, cpu_encoder, gpu_encoder, index_handle)


def _gpu_encoder(settings: Settings) -> Deployment:
    """Encoders that hold a GPU each, none as long as nobody calls them."""
    return _scaled(
        _deployment(Encoder, max_ongoing_requests=GPU_ENCODER_CALLS, cpus=GPU_ENCODER_CPUS),
        scale_encoders(
            least=0,
            most=settings.embeddings_gpu_workers,
            # Longer than Encoders believes one to be there that it doesn't call.
            scale_down_s=max(settings.embeddings_scale_down_s, 2 * REST_S),
        ),
    ).options(
        name=GPU_ENCODER,
        max_queued_requests=GPU_ENCODER_CALLS,
        ray_actor_options={"num_cpus": GPU_ENCODER_CPUS, "num_gpus": 1},
    )


def _scaled(deployment: Deployment, scaling: AutoscalingConfig) -> Deployment:
    if scaling.min_replicas == scaling.max_replicas:
        return deployment
    # "auto" is how Serve is told that the numbers are in the other.
    return deployment.options(num_replicas="auto", autoscaling_config=scaling)


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
