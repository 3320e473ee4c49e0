"""The Ingress deployment: the REST API, over what it asks of Encoder and Index."""

import asyncio

from fastapi import FastAPI
from ray import serve
from ray.serve.context import _get_global_client
from ray.serve.handle import DeploymentHandle

from deployments.backend import ServeBackend
from deployments.core.errors import ServiceError
from deployments.core.exposure import check_exposure
from deployments.core.settings import Settings
from deployments.encoders import Encoders
from deployments.logs import log_as_serve
from deployments.metrics import IngressMetrics, Publisher
from deployments.rest.application import create_app
from deployments.serve_state import running_encoders

READY_CHECK_PERIOD_S = 15.0
READY_CHECK_TIMEOUT_S = 30.0


@serve.ingress()
class Ingress:
    """The deployment that answers HTTP; stateless."""

    def __init__(
        self,
        settings: Settings,
        encoder: DeploymentHandle,
        gpu_encoder: DeploymentHandle | None,
        index: DeploymentHandle,
    ) -> None:
        log_as_serve()
        check_exposure(settings, _get_global_client().http_config.host)
        self._settings = settings
        encoders = Encoders(encoder, gpu_encoder, timeout_s=settings.embeddings_timeout_s)
        self._backend = ServeBackend(settings, encoders, index)
        self._metrics = IngressMetrics()
        backend, metrics = self._backend, self._metrics
        self._publisher = Publisher(lambda: metrics.publish(backend.search_calls))
        self._loop = asyncio.get_running_loop()
        self._checks = Publisher(self._publish_ready, READY_CHECK_PERIOD_S)

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Serve calls this once, after the constructor."""
        return create_app(self._backend, self._settings, self._metrics.request)

    def _publish_ready(self) -> None:
        check = asyncio.run_coroutine_threadsafe(self._backend.check(), self._loop)
        try:
            check.result(timeout=READY_CHECK_TIMEOUT_S)
        except (ServiceError, TimeoutError):
            self._metrics.ready(False)
        else:
            self._metrics.ready(True)
        self._backend.encoder_replicas = running_encoders()
