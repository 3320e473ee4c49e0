"""What Serve's controller knows of the deployments."""

from typing import Any

from ray import serve

from deployments.core.errors import DeploymentFailed, ServiceError
from deployments.encoders import CPU_ENCODER, GPU_ENCODER

RUNNING: Any = "RUNNING"
FAILED_STATUSES = ("UNHEALTHY", "DEPLOY_FAILED")
ERRORS_MODULE = f"{ServiceError.__module__}."


def running_encoders() -> int:
    """How many encoders run."""
    return sum(
        deployment.replica_states.get(RUNNING, 0)
        for application in serve.status().applications.values()
        for name, deployment in application.deployments.items()
        if name in (CPU_ENCODER, GPU_ENCODER)
    )


def failed_deployment() -> DeploymentFailed | None:
    """Which deployment can't start or run, with the service's own error out of Serve's message."""
    for application in serve.status().applications.values():
        for name, deployment in application.deployments.items():
            if deployment.status in FAILED_STATUSES:
                lines = [line for line in deployment.message.splitlines() if line.strip()]
                reason = next((line for line in lines if ERRORS_MODULE in line), lines[-1])
                return DeploymentFailed(f"{name}: {reason.rpartition(ERRORS_MODULE)[2]}")
    return None
