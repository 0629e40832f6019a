"""Refusals, in the shapes and words of vLLM 0.32."""

import orjson

_TYPES = {
    400: "BadRequestError",
    404: "NotFoundError",
    405: "MethodNotAllowedError",
    503: "Service Unavailable",
}
_ANTHROPIC_TYPES = {400: "invalid_request_error", 404: "not_found_error", 503: "overloaded_error"}


class RefusedError(Exception):
    """The request is answered with an error and never reaches the model.

    Attributes:
        status: HTTP status.
        message: for people.
        param: the field at fault.
    """

    def __init__(self, status: int, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param

    def body(self, *, anthropic: bool) -> bytes:
        """The error's JSON, in the shape of the API that was asked."""
        if anthropic:
            kind = _ANTHROPIC_TYPES.get(self.status, "api_error")
            return orjson.dumps({"type": "error", "error": {"type": kind, "message": self.message}})
        kind = _TYPES.get(self.status, "InternalServerError")
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.status}
        return orjson.dumps({"error": error})


class UnauthorizedError(RefusedError):
    """The key is missing or wrong: vLLM answers it before any route, in the shape of no API."""

    def __init__(self) -> None:
        super().__init__(401, "Unauthorized")

    def body(self, *, anthropic: bool) -> bytes:  # noqa: ARG002 - it is the same everywhere
        """The answer of vLLM's middleware."""
        return b'{"error":"Unauthorized"}'


def full() -> RefusedError:
    """``max_num_queued_reqs`` is reached."""
    return RefusedError(
        503, "The engine is busy and takes no new requests. Try again later or on another instance."
    )


def failed() -> RefusedError:
    """The engine broke down under the request."""
    return RefusedError(500, "EngineCore encountered an issue. See stack trace (above) for the root cause.")


def too_long(prompt_tokens: int, max_tokens: int, max_model_len: int) -> RefusedError:
    """Prompt and answer exceed the model's context."""
    return RefusedError(
        400,
        f"This model's maximum context length is {max_model_len} tokens. However, you requested "
        f"{max_tokens} output tokens and your prompt contains {prompt_tokens} input tokens.",
        param="input_tokens",
    )


def unknown_model(model: str) -> RefusedError:
    """Neither the model nor an adapter of it."""
    return RefusedError(404, f"The model `{model}` does not exist.", param="model")
