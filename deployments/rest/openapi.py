"""The OpenAPI document, completed: problems, access, and an example of each answer."""

from typing import Any

from fastapi import FastAPI

from deployments.core.api.schemas import Problem
from deployments.rest.access import describe_access
from deployments.rest.openapi_examples import ANSWERS, OPENAI_ERROR, UNHEALTHY

UNUSED = ("HTTPValidationError", "ValidationError")
"""FastAPI's own shapes of errors, which this service doesn't use."""


def complete_openapi(app: FastAPI) -> None:
    """Let the app describe what FastAPI can't see; its routes have to be there already."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = generate()
            components = document["components"]["schemas"]
            for name in UNUSED:
                components.pop(name, None)
            definition = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
            components |= definition.pop("$defs", {}) | {"Problem": definition}
            describe_access(document)
            for path, operations in document["paths"].items():
                for method, operation in operations.items():
                    _add_examples(f"{method.upper()} {path}", operation["responses"])
        return app.openapi_schema or generate()

    app.openapi = openapi  # type: ignore[method-assign]


def _add_examples(route: str, responses: dict[str, Any]) -> None:
    if route in ANSWERS:
        responses["200"]["content"]["application/json"]["example"] = ANSWERS[route]
    for status, response in responses.items():
        content = response.get("content", {}).get("application/json", {})
        schema = content.get("schema", {}).get("$ref", "")
        if schema.endswith("/OpenAIErrorResponse"):
            content["example"] = OPENAI_ERROR
        elif status == "503" and schema.endswith("/HealthResponse"):
            content["example"] = UNHEALTHY
