"""Settings of the spans that go to an OpenTelemetry collector."""

import re
from collections.abc import Iterator
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from skylb.addresses import parse_replica
from skylb.settings.values import FILE, Bytes, Expected, File, Group, Placeholder, Seconds

RESOURCE_MAX = 64
RESOURCE_LEN_MAX = 256

_RESOURCE = re.compile(rf"[A-Za-z][A-Za-z0-9._-]{{0,{RESOURCE_LEN_MAX - 1}}}=[ -~]{{1,{RESOURCE_LEN_MAX}}}")


def _endpoint(text: str) -> str:
    parts = urlsplit(text)
    if parts.query or parts.fragment:
        raise ValueError("a query or fragment does not belong here")
    if not parts.path.isascii() or not parts.path.isprintable() or " " in parts.path:
        raise ValueError("the path has characters that no URL has")
    if "@" in parts.netloc:
        raise ValueError("credentials do not belong here: use otlp.headers_file")
    if parts.scheme not in {"http", "https"}:
        raise ValueError("the scheme is neither http nor https")
    return f"{parse_replica(f'{parts.scheme}://{parts.netloc}')}{parts.path.rstrip('/')}"


def _resource(text: str) -> str:
    if _RESOURCE.fullmatch(text) is None:
        raise ValueError(f"there is no NAME=VALUE of printable ASCII, {RESOURCE_LEN_MAX} characters each")
    return text


class OtlpSettings(Group):
    """Spans of requests for an OpenTelemetry collector: where they go, and which requests have some."""

    endpoint: Annotated[
        str | None,
        AfterValidator(_endpoint),
        Expected("http://HOST:PORT or https://HOST:PORT, with or without a path"),
        Placeholder("URL"),
        Field(
            max_length=1024,
            description="OpenTelemetry collector to which SkyLB posts spans (OTLP over HTTP, protobuf), at "
            "/v1/traces below this URL. Without it SkyLB makes no spans and passes traceparent unchanged.",
        ),
    ] = None
    sample_ratio: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="Share of the traces begun here that are exported. 1 exports all, and costs more CPU "
            "time per request. Reduce it where the collector stores too much. Slow and failed requests are "
            "exported in any case. A trace that the client began follows the client's sampled flag instead.",
        ),
    ] = 0.1
    slow_s: Annotated[
        Seconds,
        Field(
            gt=0,
            description="Time to the first byte from which a request is exported, sampled or not. Set it "
            "above the times that are usual for you.",
        ),
    ] = 5.0
    headers_file: Annotated[
        File | None,
        FILE,
        Field(
            description="File with headers for the collector, one NAME: VALUE per line, such as an API key. "
            "SkyLB reads it again on SIGHUP."
        ),
    ] = None
    ca: Annotated[
        File | None,
        FILE,
        Field(description="Certificates (PEM) that verify an https collector, instead of the system's."),
    ] = None
    service_name: Annotated[
        str,
        Field(
            min_length=1,
            max_length=RESOURCE_LEN_MAX,
            description="Name of this service in the spans (service.name). Give all balancers the same name.",
        ),
    ] = "skylb"
    resource: Annotated[
        tuple[Annotated[str, AfterValidator(_resource)], ...],
        Expected("NAME=VALUE"),
        Placeholder("NAME=VALUE"),
        Field(
            max_length=RESOURCE_MAX,
            description="Attribute of all spans of this balancer, such as deployment.environment.name=prod.",
        ),
    ] = ()
    timeout_s: Annotated[
        Seconds,
        Field(
            gt=0,
            le=60,
            description="Longest time that SkyLB waits for the collector to connect, to take bytes or to "
            "answer.",
        ),
    ] = 5.0
    queue_bytes_max: Annotated[
        Bytes,
        Field(
            ge=1 << 16,
            le=16 << 20,  # it is posted as one message: the OpenTelemetry Collector takes 20 MiB by default
            description="Memory for spans that wait for the collector. Beyond it SkyLB drops spans and "
            "counts them. What is being posted stands beside it, so the memory is up to twice that.",
        ),
    ] = 4 << 20

    def conflicts(self) -> Iterator[tuple[set[str], str]]:
        """Values that are valid alone and wrong together: the options' names, and a sentence."""
        if self.endpoint is None:
            for name in ("headers_file", "ca"):
                if getattr(self, name) is not None:
                    yield (
                        {f"otlp.{name}", "otlp.endpoint"},
                        f"otlp.{name} is given without otlp.endpoint: expected both",
                    )
