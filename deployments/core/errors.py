"""Every error that the service raises on purpose.

    ServiceError
    ├── UnreadableBody               400  not JSON
    ├── Unauthorized                 401  no key, or none that is known
    ├── Forbidden                    403  the key, or the way here, doesn't allow it
    ├── NotFound                     404  no such route or name
    ├── InvalidInput                 422  the request is wrong
    ├── Conflict                     409  not in the present state
    ├── BodyTooSlow                  408
    ├── BodyTooLarge                 413
    ├── Overloaded                   429  try again later
    ├── NotReady                     503  starting, restarting, or waiting for the folder's lock
    │   ├── FolderLocked
    │   └── DeploymentFailed              Serve can't start it, or keep it running
    ├── OtherModel                   503  vectors of a model that the index doesn't have
    ├── DeadlineExceeded             503
    ├── StoreError
    │   ├── StoreUnwritable          503  read-only folder, input/output error
    │   │   └── StoreFull            507
    │   ├── StoreDamaged             503
    │   ├── StoreMismatch            503  of another model, dimension or newer version
    │   └── LegacyFolder             503  files of the old service, not imported yet
    ├── ModelError
    │   ├── ModelNotFound            503
    │   └── ModelCorrupt             503
    └── SettingsError                500  stops the start, never reaches a client

Each takes one argument, its message, so that it survives pickling between replicas. Each class
carries the HTTP status and the stable code that the REST API answers with.
"""

from typing import ClassVar


class ServiceError(Exception):
    """Root of the service's errors: a message for people, a status and a code for programs."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    title: ClassVar[str] = "Internal error"
    retry_after_s: ClassVar[int | None] = None

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class UnreadableBody(ServiceError):
    """The request's body is not JSON in UTF-8."""

    status = 400
    code = "unreadable_body"
    title = "Unreadable body"


class Unauthorized(ServiceError):
    """The request needs an API key and has none that is known."""

    status = 401
    code = "unauthorized"
    title = "Unauthorized"


class Forbidden(ServiceError):
    """The request may not do this, whatever it says."""

    status = 403
    code = "forbidden"
    title = "Forbidden"


class NotFound(ServiceError):
    """The URL names nothing."""

    status = 404
    code = "not_found"
    title = "Not found"


class InvalidInput(ServiceError):
    """The request can't be served as it is; sending it again won't help."""

    status = 422
    code = "invalid_input"
    title = "Invalid input"


class Conflict(ServiceError):
    """The request is right, but not in the state that the service is in."""

    status = 409
    code = "conflict"
    title = "Not in this state"


class BodyTooSlow(ServiceError):
    """The request's body didn't arrive in time; nothing of the request was done."""

    status = 408
    code = "body_too_slow"
    title = "Body too slow"
    retry_after_s = 1


class BodyTooLarge(ServiceError):
    """The request's body has more bytes than the service accepts."""

    status = 413
    code = "body_too_large"
    title = "Body too large"


class Overloaded(ServiceError):
    """Too much work is waiting already; nothing of the request was done."""

    status = 429
    code = "overloaded"
    title = "Too many requests"
    retry_after_s = 1


class NotReady(ServiceError):
    """A part of the service is starting, restarting or gone; nothing was applied."""

    status = 503
    code = "not_ready"
    title = "Not ready"
    retry_after_s = 2


class FolderLocked(NotReady):
    """Another process is the folder's writer; this one waits for it to end."""

    code = "folder_locked"
    title = "Folder in use"


class DeploymentFailed(NotReady):
    """A part of the service can't start, or keeps failing its health check."""

    code = "deployment_failed"
    title = "Deployment failed"
    retry_after_s = 30


class OtherModel(ServiceError):
    """What was sent was made by another model than the index' vectors; nothing was applied."""

    status = 503
    code = "other_model"
    title = "Other model"
    retry_after_s = 2


class DeadlineExceeded(ServiceError):
    """The answer didn't come in time. A write may have been applied: repeating it is safe."""

    status = 503
    code = "deadline_exceeded"
    title = "Deadline exceeded"
    retry_after_s = 2


class StoreError(ServiceError):
    """The store on disk can't do what was asked."""

    status = 503
    code = "store_error"
    title = "Store error"


class StoreUnwritable(StoreError):
    """A write could not be made durable, and nothing of it was applied."""

    code = "store_unwritable"
    title = "Store not writable"
    retry_after_s = 30


class StoreFull(StoreUnwritable):
    """The disk has no room for a write, and nothing of it was applied."""

    status = 507
    code = "store_full"
    title = "Disk full"


class StoreDamaged(StoreError):
    """The store's file is not what was written to it."""

    code = "store_damaged"
    title = "Store damaged"


class StoreMismatch(StoreError):
    """The folder was written with another model, another dimension or a newer version."""

    code = "store_mismatch"
    title = "Store of another model or version"


class LegacyFolder(StoreError):
    """The folder holds the files of the service that this one replaces."""

    code = "legacy_folder"
    title = "Files of the old service"


class ModelError(ServiceError):
    """The embedding model can't be used."""

    status = 503
    code = "model_error"
    title = "Model error"


class ModelNotFound(ModelError):
    """The model is in none of the places where it is looked for."""

    code = "model_not_found"
    title = "Model not found"


class ModelCorrupt(ModelError):
    """The model's files are not the ones that were published."""

    code = "model_corrupt"
    title = "Model corrupt"


class SettingsError(ServiceError):
    """A setting is unknown or has a value that isn't allowed."""

    code = "settings_error"
    title = "Settings error"
