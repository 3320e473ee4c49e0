"""Lets the lines that the core logs appear where Serve's own do."""

import logging


def log_as_serve() -> None:
    """Call in a replica: Serve has set its logger up there, and only its handlers are read."""
    ours, serve = logging.getLogger("deployments"), logging.getLogger("ray.serve")
    ours.handlers = serve.handlers
    ours.setLevel(serve.level)
    ours.propagate = False
