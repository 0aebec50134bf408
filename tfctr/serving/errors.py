"""Errors of a server: a gRPC status code and TF Serving's text."""

import grpc

MAX_MESSAGE = 2000
"""Most characters of a message: gRPC sends it in a header, whose size is limited."""


class ServingError(Exception):
    """The server answered with an error status.

    Attributes:
        code: `grpc.StatusCode`, e.g. `grpc.StatusCode.NOT_FOUND`.
        message: TF Serving's text for this error.
    """

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(f"{code.name}: {message[:MAX_MESSAGE]}")
        self.code = code
        self.message = message[:MAX_MESSAGE]


def invalid(message: str) -> ServingError:
    """INVALID_ARGUMENT: the request is wrong, whatever the state of the server."""
    return ServingError(grpc.StatusCode.INVALID_ARGUMENT, message)


def not_found(message: str) -> ServingError:
    """NOT_FOUND: there is no such model, or no such version of it."""
    return ServingError(grpc.StatusCode.NOT_FOUND, message)


def no_servable(name: str, version: int | None) -> ServingError:
    """NOT_FOUND: the model, or this version of it, is not served."""
    wanted = f"Latest({name})" if version is None else f"Specific({name}, {version})"
    return not_found(f"Servable not found for request: {wanted}")
