"""Which route a request is for."""

from starlette.types import Scope

NO_ROUTE = "none"


def route_path(scope: Scope) -> str:
    """The path of a request as the routes have it."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def route_template(scope: Scope) -> str:
    """The route that took the request, without the values in its path.

    What a client wrote into the URL stays out of logs and metrics by this.
    """
    route = scope.get("route")
    return NO_ROUTE if route is None else route.path
