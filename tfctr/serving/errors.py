"""What the server answers instead of scores."""

import grpc

MAX_MESSAGE = 2000
"""Characters of a message that are kept: gRPC sends it in a header, whose size is limited."""


class ServingError(Exception):
    """An answer of the server that is not OK.

    Attributes:
        code: `grpc.StatusCode`, e.g. `grpc.StatusCode.NOT_FOUND`.
        message: what TF Serving says in this case.
    """

    def __init__(self, code: grpc.StatusCode, message: str) -> None:
        super().__init__(f"{code.name}: {message[:MAX_MESSAGE]}")
        self.code = code
        self.message = message[:MAX_MESSAGE]


def invalid(message: str) -> ServingError:
    """The request is wrong, whatever the state of the server."""
    return ServingError(grpc.StatusCode.INVALID_ARGUMENT, message)


def not_found(message: str) -> ServingError:
    """No such model, or no such version of it."""
    return ServingError(grpc.StatusCode.NOT_FOUND, message)


def no_servable(name: str, version: int | None) -> ServingError:
    """The model, or this version of it, is not served."""
    wanted = f"Latest({name})" if version is None else f"Specific({name}, {version})"
    return not_found(f"Servable not found for request: {wanted}")
