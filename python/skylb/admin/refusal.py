"""Answers of the admin listener in JSON, its errors included. The table of errors has their codes."""

from collections.abc import Collection, Mapping

import orjson
from aiohttp import web

from skylb.data.answers import status_of

_LIBRARY_CODES = {
    404: "unknown_path",
    405: "method_not_allowed",
    413: "body_too_large",
    417: "expectation_failed",
}
"""What aiohttp itself refuses, by its status."""


class Refusal(Exception):  # noqa: N818 - an answer, raised to leave a handler early
    """An answer other than success.

    Args:
        code: stable word for programs, of the table of errors.
        message: sentence for people.
        headers: further fields of the answer.
    """

    def __init__(self, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.headers = dict(headers or {})

    def answer(self) -> web.Response:
        """The response that says so."""
        error = {"message": self.message, "type": "admin_error", "code": self.code}
        return json_answer({"error": error}, status=status_of(self.code), headers=self.headers)


def of_library(error: web.HTTPException) -> Refusal | None:
    """What aiohttp refuses, in our words; ``None``: it has no code here."""
    code = _LIBRARY_CODES.get(error.status)
    if code is None:
        return None
    allow = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
    return Refusal(code, error.text or error.reason, allow)


def field_of(body: bytes, name: str, code: str, values: Collection[str]) -> str:
    """The value of the only field of a JSON object.

    Args:
        body: of the request.
        name: the field.
        code: of the refusal.
        values: what it may be.

    Raises:
        Refusal: the body is not JSON, or not such an object.
    """
    expected = f'expected {{"{name}": one of {", ".join(values)}}}'
    try:
        asked = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refusal("invalid_json", f"the body is not JSON: {error}") from error
    if not isinstance(asked, dict):
        raise Refusal(code, f"the body is no object: {expected}")
    if unknown := sorted(set(asked) - {name}):
        raise Refusal(code, f"{unknown[0]}: unknown field: {expected}")
    if name not in asked:
        raise Refusal(code, f"{name}: missing: {expected}")
    value = asked[name]
    if not isinstance(value, str) or value not in values:
        raise Refusal(code, f"{name} {value!r}: {expected}")
    return value


def json_answer(
    value: object, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    """An answer of the admin listener."""
    return web.Response(
        body=orjson.dumps(value) + b"\n", status=status, headers=headers, content_type="application/json"
    )
