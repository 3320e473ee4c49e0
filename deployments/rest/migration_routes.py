"""The routes that change the model without stopping."""

from typing import Protocol

from fastapi import APIRouter

from deployments.core.api.migration_schemas import MigrationBody, MigrationResponse
from deployments.core.errors import Conflict, InvalidInput, ModelError
from deployments.core.storage.migration_record import Act, MigrationRequest, MigrationStatus
from deployments.rest.problems import (
    BODY_PROBLEMS,
    READ_PROBLEMS,
    WRITE_PROBLEMS,
    problem_responses,
)

_PROBLEMS = WRITE_PROBLEMS | problem_responses(Conflict)


class MigrationBackend(Protocol):
    """What the routes call; raises the service's errors only."""

    async def migrate(self, request: MigrationRequest) -> MigrationStatus | None:
        """Do what is asked; the migration as it is then, None if there is none."""
        ...


def migration_routes(backend: MigrationBackend) -> APIRouter:
    """The routes under /migrations."""
    routes = APIRouter(prefix="/migrations", tags=["operations"])

    async def answer(request: MigrationRequest) -> MigrationResponse:
        return MigrationResponse.of(await backend.migrate(request))

    @routes.get("", responses=READ_PROBLEMS, summary="How far the change to another model is")
    async def state() -> MigrationResponse:
        """The migration, with the overlap of both models' answers once that is measured."""
        return await answer(MigrationRequest(Act.STATUS))

    @routes.post(
        "",
        responses=_PROBLEMS | BODY_PROBLEMS,
        summary="Change the model",
    )
    async def start(body: MigrationBody) -> MigrationResponse:
        """Begins to encode every segment anew, in the background and behind everything else.

        Searches use the old model until all is done. What failed or was ended before goes on
        where it was.
        """
        try:
            return await answer(body.request())
        except ModelError as error:
            # Not the service lacks its model: the request names one that is of no use.
            raise InvalidInput(error.detail) from error

    @routes.post("/switch", responses=_PROBLEMS, summary="Search with the new model")
    async def switch() -> MigrationResponse:
        """Lets searches use the new model, if every segment has a vector of it."""
        return await answer(MigrationRequest(Act.SWITCH))

    @routes.post("/rollback", responses=_PROBLEMS, summary="Search with the old model again")
    async def rollback() -> MigrationResponse:
        """Takes the switch back, as long as the migration wasn't ended."""
        return await answer(MigrationRequest(Act.ROLL_BACK))

    @routes.delete("", responses=_PROBLEMS, summary="End the migration")
    async def end() -> MigrationResponse:
        """Removes the vectors that searches don't use: before the switch those of the new model,
        after it those of the old one.
        """
        return await answer(MigrationRequest(Act.END))

    return routes
