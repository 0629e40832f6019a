"""Every setting, written once: default, bounds, description.

Flags, environment names, the TOML file, ``skylb config show`` and the tables in the documentation
derive from these models (`skylb.options` does it). The environment is read in this module alone.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from skylb.addresses import ListenAddress, ReplicaUrl
from skylb.discovery.sources import SourceSettings, given, usage
from skylb.settings.continuing import ContinuingSettings
from skylb.settings.discovery import DiscoverySettings, DnsFamily
from skylb.settings.engine import EngineSettings
from skylb.settings.handover import HandoverSettings
from skylb.settings.mesh import MeshSettings
from skylb.settings.names import DnsSettings
from skylb.settings.otlp import OtlpSettings
from skylb.settings.sections import CHOICE, CLIENTS, COMMON, KEYS, LIMITS, LOGS, STOP
from skylb.settings.serving import Policy
from skylb.settings.times import TimeoutSettings
from skylb.settings.values import (
    FILE,
    LISTEN,
    Bytes,
    Count,
    Expected,
    File,
    Group,
    Listen,
    Network,
    Otherwise,
    Placeholder,
    Seconds,
)

__all__ = [
    "FILE",
    "LISTEN",
    "Bytes",
    "Count",
    "DiscoverySettings",
    "DnsFamily",
    "EngineSettings",
    "Expected",
    "File",
    "Group",
    "Listen",
    "Otherwise",
    "Placeholder",
    "Policy",
    "Seconds",
    "Settings",
    "TimeoutSettings",
    "environment",
    "manager_environment",
]

ENVIRONMENT_PREFIX = "SKYLB_"

_KUBERNETES_LINK = re.compile(
    r"SKYLB(_[A-Z0-9_]+)?_(SERVICE_(HOST|PORT(_[A-Z0-9_]+)?)|PORT(_[0-9]+_[A-Z_]+)?)"
)


def environment() -> dict[str, str]:
    """The variables of this process that are ours.

    Kubernetes sets variables such as ``SKYLB_PORT`` and ``SKYLB_SERVICE_HOST`` in every container
    beside a Service of the name "skylb"; they are no settings and left out.
    """
    return {
        name: value
        for name, value in os.environ.items()
        if name.startswith(ENVIRONMENT_PREFIX)
        and name != HANDOVER_VARIABLE
        and not _is_kubernetes_link(name, value)
    }


def _is_kubernetes_link(name: str, value: str) -> bool:
    """Whether Kubernetes set a variable.

    ``SKYLB_KUBERNETES_PORT`` and ``SKYLB_REUSE_PORT`` are settings too. A link is ``tcp://ADDRESS:PORT``.
    """
    settings = {f"{ENVIRONMENT_PREFIX}KUBERNETES_PORT", f"{ENVIRONMENT_PREFIX}REUSE_PORT"}
    is_setting = name in settings and "://" not in value
    return _KUBERNETES_LINK.fullmatch(name) is not None and not is_setting


HANDOVER_VARIABLE = "SKYLB_HANDOVER_FD"
"""The descriptor of the connection over which this process is to take over."""

MANAGER_VARIABLES = (
    HANDOVER_VARIABLE,
    "LISTEN_FDNAMES",
    "LISTEN_FDS",
    "LISTEN_PID",
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
)


def manager_environment() -> dict[str, str]:
    """The variables that a service manager sets: sd_listen_fds(3), sd_notify(3), sd_watchdog_enabled(3)."""
    return {name: os.environ[name] for name in MANAGER_VARIABLES if name in os.environ}


def all_environment() -> dict[str, str]:
    """All variables of this process."""
    return dict(os.environ)


def child_environment() -> dict[str, str]:
    """The variables that a process of this balancer gets: all but those of the service manager."""
    return {name: value for name, value in os.environ.items() if name not in MANAGER_VARIABLES}


LogLevel = Literal["debug", "info", "warning", "error"]


class Settings(SourceSettings, HandoverSettings, ContinuingSettings):
    """All settings of ``skylb serve``."""

    listen: Annotated[
        tuple[Listen, ...],
        LISTEN,
        COMMON,
        CLIENTS,
        Field(min_length=1, max_length=64, description="Address that clients connect to."),
    ] = (ListenAddress("127.0.0.1", 8080),)
    admin: Annotated[
        Listen,
        LISTEN,
        COMMON,
        CLIENTS,
        Field(
            description="Address of the admin listener: health, metrics, state and operator commands. "
            "Keep it off the public network."
        ),
    ] = ListenAddress("127.0.0.1", 8081)
    admin_token_file: Annotated[
        File | None,
        FILE,
        CLIENTS,
        Field(
            description="File with the bearer token for /state and operator commands. Without it they "
            "answer on loopback only."
        ),
    ] = None
    keys_file: Annotated[
        File | None,
        FILE,
        COMMON,
        KEYS,
        Field(
            description="File of the clients' API keys and of their tenants' limits, in TOML. With it, SkyLB "
            "serves only clients with a valid key. skylb keys makes keys; docs/GUARD.md describes the file."
        ),
    ] = None
    replica_key_file: Annotated[
        File | None,
        FILE,
        COMMON,
        KEYS,
        Field(
            description="File with the API key that SkyLB sends to replicas, instead of the client's "
            "Authorization. Without --keys-file, everybody who reaches SkyLB can then use the replicas."
        ),
    ] = None
    probe_key_file: Annotated[
        File | None,
        FILE,
        KEYS,
        Field(
            description="File with the API key that SkyLB sends with probes and requests for model lists "
            "only."
        ),
    ] = None
    replica_ca: Annotated[
        File | None,
        FILE,
        KEYS,
        Field(description="Certificates (PEM) that verify https replicas, instead of the system's."),
    ] = None
    tls_cert: Annotated[
        File | None,
        FILE,
        COMMON,
        KEYS,
        Field(description="Certificate chain (PEM) of the client listeners. Needs --tls-key."),
    ] = None
    tls_key: Annotated[
        File | None, FILE, COMMON, KEYS, Field(description="Private key (PEM) of --tls-cert.")
    ] = None
    tls_client_ca: Annotated[
        File | None,
        FILE,
        KEYS,
        Field(description="Certificates (PEM). Each client must show a certificate that one of them signed."),
    ] = None
    trusted_proxies: Annotated[
        tuple[Network, ...],
        Expected("an IP address or network (10.0.0.0/8)"),
        Placeholder("NETWORK"),
        CLIENTS,
        Field(
            max_length=1024,
            description="Address or network of a proxy in front of SkyLB. Only from such a proxy "
            "does SkyLB accept X-Forwarded-*, the class and tenant headers, and headers that control "
            "the engine.",
        ),
    ] = ()
    cors_origin: Annotated[
        str | None,
        Expected("* or scheme://host[:port]"),
        CLIENTS,
        Field(
            pattern=r"^(\*|https?://[A-Za-z0-9.:\[\]-]+)$",
            description="Origin whose web pages may call SkyLB from a browser. * allows every origin.",
        ),
    ] = None
    key_header: Annotated[
        str | None,
        Expected("the name of a header"),
        CLIENTS,
        Field(
            pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$",
            description="Header that names a request's session. Where it is given, the session keys in the "
            "body do not count.",
        ),
    ] = None
    inject_usage: Annotated[
        bool,
        CLIENTS,
        Field(
            description="Ask the engine for a stream's usage where the client does not, and remove the "
            "extra event from the answer. From the usage SkyLB learns what replicas really "
            "cache."
        ),
    ] = False
    class_header: Annotated[
        str | None,
        Expected("the name of a header"),
        CLIENTS,
        Field(
            pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$",
            description="Header in which a trusted proxy names a request's class: high, normal, low, or a "
            "numeric priority.",
        ),
    ] = None
    body_bytes_max: Annotated[
        Bytes, LIMITS, Field(ge=1, description="Largest request body. A larger one gets 413.")
    ] = 64 << 20
    buffer_bytes_max: Annotated[
        Bytes,
        LIMITS,
        Field(ge=1, description="Memory for all request bodies together. A body that does not fit gets 503."),
    ] = 1 << 30
    connections_max: Annotated[
        Count,
        LIMITS,
        Field(
            ge=1,
            description="Maximum number of client connections at once. The process's file descriptors may "
            "allow fewer.",
        ),
    ] = 16_384
    upstream_idle_max: Annotated[
        Count,
        LIMITS,
        Field(ge=0, description="Maximum number of idle connections that SkyLB keeps open to one replica."),
    ] = 256
    drain_delay_s: Annotated[
        Seconds,
        STOP,
        Field(
            ge=0,
            description="Time after SIGTERM in which SkyLB still takes new connections while /ready says "
            "503. Set it to the time that a load balancer in front needs to notice. A second "
            "signal ends the delay.",
        ),
    ] = 0.0
    drain_timeout_s: Annotated[
        Seconds,
        COMMON,
        STOP,
        Field(
            ge=0,
            description="Longest time that SkyLB waits for running requests to end, after SIGTERM and "
            "--drain-delay-s. A second signal ends the wait.",
        ),
    ] = 30.0
    workers: Annotated[
        Count,
        Field(
            ge=1,
            le=64,
            description="Processes that hold clients' connections. With 2 or more, one more process decides "
            "for all of them, and one supervises.",
        ),
    ] = 1
    receipts: Annotated[
        Count,
        Field(
            ge=0,
            le=65_536,
            description="Number of the last requests that keep a receipt: why each went where it went. A "
            "receipt takes about 1 KiB, and 3 KiB with 16 replicas or more. 0 keeps none. docs/EXPLAIN.md "
            "describes receipts.",
        ),
    ] = 0
    seed: Annotated[
        int | None,
        Expected("an integer from 0 to 18446744073709551615"),
        CHOICE,
        Field(
            ge=0,
            lt=1 << 64,
            description="Seed of the engine's random choices, for reproducible runs. Without it SkyLB "
            "draws one at start.",
        ),
    ] = None
    log_level: Annotated[LogLevel, COMMON, LOGS, Field(description="Least severe level that SkyLB logs.")] = (
        "info"
    )
    log_format: Annotated[
        Literal["text", "logfmt", "json"],
        COMMON,
        LOGS,
        Field(
            description="Format of log messages and of the access log. text: short lines for people. logfmt: "
            "all fields of a request, as key=value. json: all fields, one JSON object per line, and nothing "
            "but JSON on stderr."
        ),
    ] = "text"
    access_log: Annotated[
        str,
        Expected("stderr, off, or the path of a file"),
        COMMON,
        LOGS,
        Field(
            min_length=1,
            description="Destination of the access log, one line per request: stderr, off, or a file.",
        ),
    ] = "stderr"
    record: Annotated[
        Path | None,
        Expected("the path of a directory"),
        Placeholder("DIR"),
        Field(
            description="Directory for a trace of the requests that arrive: times, lengths and which prompts "
            "share how much, without a text. skylb sim and skylb load replay it."
        ),
    ] = None
    record_bytes_max: Annotated[
        Bytes,
        Field(
            ge=1 << 20,
            description="Maximum size of all recordings in --record. The oldest file is removed when more "
            "comes. A larger one keeps a longer time.",
        ),
    ] = 1 << 30
    engine_counters: Annotated[
        bool,
        Field(
            description="Show every counter of the engine in skylb_engine_events_total, not only those that "
            "operators need. Switch it on to debug SkyLB itself."
        ),
    ] = False
    mesh: MeshSettings = MeshSettings()
    dns: DnsSettings = DnsSettings()
    otlp: OtlpSettings = OtlpSettings()
    timeout: TimeoutSettings = TimeoutSettings()
    discovery: DiscoverySettings = DiscoverySettings()
    engine: EngineSettings = EngineSettings()

    def conflicts(self) -> Iterator[tuple[set[str], str]]:
        """Values that are valid alone and wrong together: the options' names, and a sentence."""
        yield from self._listener_conflicts()
        yield from self._fleet_conflicts()
        yield from self.kubernetes.conflicts()
        yield from self.handover_conflicts()
        if self.keys_file is not None and self.mesh.tenant_key_file is not None:
            yield (
                {"keys_file", "tenant_key_file"},
                "keys_file and tenant_key_file are given: expected keys_file alone, which names tenants too",
            )
        yield from self.mesh.conflicts()
        yield from self.dns.conflicts()
        yield from self.otlp.conflicts()
        for low, high in ORDERED:
            low_value, high_value = _by_name(self, low), _by_name(self, high)
            if low_value is not None and high_value is not None and low_value > high_value:
                yield (
                    {low, high},
                    f"{low} is {low_value} and {high} is {high_value}: expected {low} <= {high}",
                )

    def _listener_conflicts(self) -> Iterator[tuple[set[str], str]]:
        for index, address in enumerate(self.listen):
            if any(address.collides(other) for other in self.listen[:index]):
                yield (
                    {"listen"},
                    f"listen: {address} is given twice, or within another: expected distinct addresses",
                )
        taken = [("listen", address) for address in self.listen]
        for name, own in (
            ("admin", self.admin),
            ("peer_listen", self.mesh.peer_listen),
            ("sync_listen", self.mesh.sync_listen),
        ):
            if own is not None:
                for other, address in taken:
                    if address.collides(own):
                        yield {other, name}, f"{name}: {own} is also in {other}: expected another address"
                taken.append((name, own))
        if (self.tls_cert is None) != (self.tls_key is None):
            one, other = ("tls_cert", "tls_key") if self.tls_key is None else ("tls_key", "tls_cert")
            yield {"tls_cert", "tls_key"}, f"{one} is given without {other}: expected both or neither"
        if self.tls_client_ca is not None and self.tls_cert is None:
            yield {"tls_client_ca", "tls_cert"}, "tls_client_ca is given without tls_cert: expected both"

    def _fleet_conflicts(self) -> Iterator[tuple[set[str], str]]:
        if not given(self):
            yield {*SourceSettings.model_fields, "kubernetes.selector"}, f"no replicas: expected {usage()}"
        if self.kubernetes.config is not None:
            users = (self.kubernetes.selector, self.mesh.peer_kubernetes_service)
            if users == (None, None):
                others = ("kubernetes.selector", "peer_kubernetes_service")
                sentence = f"kubernetes.config is given without {' or '.join(others)}: expected one of them"
                yield {"kubernetes.config", *others}, sentence
        for index, url in enumerate(self.replica):
            if url in self.replica[:index]:
                yield {"replica"}, f"replica: {url} is given twice: expected distinct replicas"
            if any(_is_at(url, address) for address in (*self.listen, self.admin)):
                yield (
                    {"replica", "listen", "admin"},
                    f"replica: {url} is SkyLB itself: expected a replica's address",
                )


def _is_at(url: ReplicaUrl, address: ListenAddress) -> bool:
    if url.scheme == "unix" or address.unix:
        return url.scheme == "unix" and address.unix and url.host == address.host
    here = url.host == address.host or (address.is_wildcard and url.host in {"127.0.0.1", "::1", "localhost"})
    return here and url.port == address.port


def _by_name(settings: Settings, name: str) -> float | None:
    group, _, field = name.rpartition(".")
    value: float | None = getattr(getattr(settings, group) if group else settings, field)
    return value


ORDERED = (
    ("body_bytes_max", "buffer_bytes_max"),
    ("engine.probe_interval_s", "engine.probe_idle_interval_s"),
    ("engine.probe_idle_interval_s", "engine.probe_stale_s"),
    ("engine.eject_s", "engine.eject_max_s"),
    ("engine.hold_tenant_bytes_max", "engine.hold_bytes_max"),
)
"""Pairs of options of which the first may not exceed the second."""

TOP_LEVEL = frozenset(
    {
        ("engine", name)
        for name in ("policy", "shadow_policy", "hold_timeout_s", "hold_len_max", "unknown_models")
    }
    | {("mesh", name) for name in MeshSettings.model_fields}
)
"""Settings of a group that are written without the group's name, because everybody needs them."""
