"""CORS: which web pages may call SkyLB from a browser and read its answers (Fetch standard, CORS protocol).

The setting allows one origin, or every origin. So all answers have the same headers. SkyLB never allows
credentials in the sense of the standard, that is cookies. Without them, ``*`` stands for every header name
but ``Authorization``, which is therefore named.
"""

import re

from skylb._core import Head
from skylb.data.answers import Headers

REQUEST_HEADERS = (
    "Authorization",
    "Content-Type",
    "Accept",
    "X-Api-Key",
    "Api-Key",
    "X-Request-Id",
    "X-Session-Id",
    "Idempotency-Key",
    "OpenAI-Organization",
    "OpenAI-Project",
    "OpenAI-Beta",
    "Anthropic-Version",
    "Anthropic-Beta",
    "Anthropic-Dangerous-Direct-Browser-Access",
    "X-Stainless-Arch",
    "X-Stainless-Lang",
    "X-Stainless-OS",
    "X-Stainless-Package-Version",
    "X-Stainless-Retry-Count",
    "X-Stainless-Runtime",
    "X-Stainless-Runtime-Version",
    "X-Stainless-Timeout",
    "X-Stainless-Helper-Method",
    "Traceparent",
    "Tracestate",
)
"""What the SDKs of OpenAI and Anthropic send from a browser; what a preflight asks for besides is added."""

ANSWER_HEADERS = (
    "X-Request-Id",
    "Retry-After",
    "Allow",
    "Date",
    "Content-Length",
    "Metadata",
    "X-RateLimit-Limit-Requests",
    "X-RateLimit-Remaining-Requests",
    "X-RateLimit-Reset-Requests",
    "X-RateLimit-Limit-Tokens",
    "X-RateLimit-Remaining-Tokens",
    "X-RateLimit-Reset-Tokens",
    "*",
)
"""What scripts may read: by name for browsers that do not know ``*``."""

_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


class Cors:
    """The headers for the configured origin.

    Args:
        origin: ``*`` or ``scheme://host[:port]``; ``None`` allows none, and says nothing.
    """

    __slots__ = ("headers", "lines")

    def __init__(self, origin: str | None = None) -> None:
        every: list[tuple[str, str]] = []
        if origin is not None:
            every.append(("Access-Control-Allow-Origin", origin))
            every.append(("Access-Control-Expose-Headers", ", ".join(ANSWER_HEADERS)))
        if origin not in (None, "*"):
            every.append(("Vary", "Origin"))
        self.headers: Headers = tuple(every)
        """What every answer has."""
        self.lines = "".join(f"{name}: {value}\r\n" for name, value in every).encode("ascii")
        """The same as header lines, for answers of replicas; empty without an origin."""


NO_CORS = Cors()


def preflight(head: Head) -> Headers:
    """What a preflight wants to know besides."""
    asked = head.header("access-control-request-headers") or ""
    known = {name.lower() for name in REQUEST_HEADERS}
    names = (name.strip() for name in asked.split(","))
    more = [name for name in names if _NAME.fullmatch(name) and name.lower() not in known]
    return (
        ("Access-Control-Allow-Methods", "GET, HEAD, POST, OPTIONS"),
        ("Access-Control-Allow-Headers", ", ".join((*REQUEST_HEADERS, *more))),
        ("Access-Control-Max-Age", "600"),
        ("Vary", "Access-Control-Request-Headers"),
    )
