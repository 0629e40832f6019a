"""The rivals: how each is started, its documented settings, and which of its times follow the scale."""

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench import environments
from bench.peers import configs
from bench.peers.scale import Interval, flags, skylb_flags
from bench.processes import PROXY_CPU, Process, Proxy, free_port, program
from bench.record import machine

SKYLB = "skylb"
MODEL = "mock"


@dataclass(frozen=True)
class Site:
    """Where one proxy stands.

    Attributes:
        upstreams: replicas as it reaches them.
        near: so many of them, the first ones, are in its own region; 0: it cannot tell.
    """

    name: str
    upstreams: list[str]
    port: int
    scratch: Path
    scale: float
    near: int = 0


Commander = Callable[["Rival", str, Site], list[str]]
"""From a rival, the path of its program and a site to the command line."""


@dataclass(frozen=True)
class Rival:
    """One program.

    Attributes:
        executable: its name.
        command: makes the command line.
        settings: as its documentation has them.
        source: that documentation.
        environment: of `bench.environments`; empty: a program of the system.
        package: its name there.
        intervals: times that follow the scale.
        fixed: what cannot follow it.
        scale_min: time must not be compressed further.
        ready_s: how long it may take to start.
    """

    name: str
    executable: str
    command: Commander
    settings: str
    source: str
    environment: str = ""
    package: str = ""
    intervals: tuple[Interval, ...] = ()
    fixed: str = ""
    scale_min: float = 0.0
    key: str = ""
    variables: dict[str, str] = field(default_factory=dict)
    ready_s: float = 60.0

    def path(self) -> str | None:
        """Where its program is; ``None`` if it is not installed."""
        if not self.environment:
            return program(self.executable)
        there = environments.directory(self.environment) / "bin" / self.executable
        return str(there) if there.exists() else None

    def version(self) -> str:
        """What was measured."""
        if self.name == SKYLB:
            return f"commit {machine()['commit']}"
        if self.environment:
            return environments.version(self.environment, self.package)
        path = self.path()
        if path is None:
            return "not installed"
        said = subprocess.run([path, "-v"], capture_output=True, text=True, check=False)
        found = re.search(r"(\d+\.\d+\.\d+)", said.stdout + said.stderr)
        return found[1] if found else "unknown"

    def times(self, scale: float) -> str:
        """Which of its times were scaled to what, and which could not be."""
        found = [one.told(scale) for one in self.intervals] if scale != 1.0 else []
        if self.name == SKYLB and scale != 1.0:
            found = [f"every setting that is a time or a rate, {len(skylb_flags(scale)) // 2} in all"]
        return "; ".join(found + ([f"not: {self.fixed}"] if self.fixed else []))

    def proxy(self, site: Site, extra: list[str] | None = None) -> Proxy:
        """One proxy of it, not yet started.

        Raises:
            RuntimeError: it is not installed.
        """
        path = sys.executable if self.name == SKYLB else self.path()
        if path is None:
            raise RuntimeError(f"{self.executable} is not installed")
        command = self.command(self, path, site) + (extra or [])
        log = site.scratch / f"{site.name}.log"
        process = Process(self.name, command, frozenset({PROXY_CPU}), log, self.variables)
        return Proxy(self.name, site.port, process, self.key)


def _router(*launch: str) -> Commander:
    def command(rival: Rival, path: str, site: Site) -> list[str]:
        found = [path, *launch, "--host", "127.0.0.1", "--port", str(site.port)]
        found += ["--prometheus-host", "127.0.0.1", "--prometheus-port", str(free_port())]
        found += ["--log-level", "warning" if rival.executable == "vllm-router" else "warn"]
        found += rival.settings.split()
        given = tuple(one for one in rival.intervals if one.flag not in found)
        found = _replaced(found, rival.intervals, site.scale)
        return [*found, *flags(given, site.scale), "--worker-urls", *site.upstreams]

    return command


def _replaced(command: list[str], intervals: tuple[Interval, ...], scale: float) -> list[str]:
    """The command with the times that it names scaled."""
    found = list(command)
    for one in intervals:
        if one.flag in found and scale != 1.0:
            found[found.index(one.flag) + 1] = str(one.units(scale))
    return found


def _skylb(_: Rival, path: str, site: Site) -> list[str]:
    found = [path, "-m", "skylb", "serve", "--listen", f"127.0.0.1:{site.port}"]
    found += ["--admin", f"127.0.0.1:{free_port()}", "--access-log", "off", *skylb_flags(site.scale)]
    return found + [part for url in site.upstreams for part in ("--replica", url)]


def _haproxy(_: Rival, path: str, site: Site) -> list[str]:
    config = site.scratch / f"{site.name}.cfg"
    config.write_text(configs.haproxy(site.upstreams, site.port, site.scale, site.near))
    return [path, "-db", "-f", str(config)]


def _nginx(_: Rival, path: str, site: Site) -> list[str]:
    directory = site.scratch / site.name
    directory.mkdir()
    config = directory / "nginx.conf"
    config.write_text(configs.nginx(site.upstreams, site.port, site.scale, directory))
    return [path, "-p", str(directory), "-c", str(config)]


def _litellm(_: Rival, path: str, site: Site) -> list[str]:
    config = site.scratch / f"{site.name}.yaml"
    config.write_text(configs.litellm(site.upstreams, MODEL, site.scale))
    found = [path, "--config", str(config), "--host", "127.0.0.1", "--port", str(site.port)]
    return [*found, "--num_workers", "1"]


_COMMON = (
    Interval("--health-check-interval-secs", 60),
    Interval("--health-check-timeout-secs", 5),
    Interval("--cb-timeout-duration-secs", 60),
    Interval("--cb-window-duration-secs", 120),
    Interval("--retry-initial-backoff-ms", 0.05, 0.001),
)
_ROUTERS_FIXED = "idle time of kept connections; CPU time"
_SMG_DOCS = "lightseekorg/smg, docs/getting-started/load-balancing.md, `Cache-Aware (Recommended)`"

RIVALS = (
    Rival(
        name=SKYLB,
        executable="skylb",
        command=_skylb,
        settings="defaults",
        source="docs/CONFIGURATION.md",
        fixed="what has no setting, above all messages between peers (every 20 to 100 ms, rooms valid for "
        "0.8 s: four times as old at a quarter); CPU time",
    ),
    Rival(
        name="vllm-router",
        executable="vllm-router",
        command=_router(),
        settings="--policy cache_aware --cache-threshold 0.5 --balance-abs-threshold 32 "
        "--balance-rel-threshold 1.1",
        source="vllm-project/router, docs/load_balancing/README.md, `Cache Aware`, its defaults: "
        "recommended for `Repeated system prompts / few-shot`",
        environment="peers",
        package="vllm-router",
        intervals=(Interval("--eviction-interval-secs", 120), *_COMMON),
        fixed=_ROUTERS_FIXED,
    ),
    Rival(
        name="vllm-router-hash",
        executable="vllm-router",
        command=_router(),
        settings="--policy consistent_hash",
        source="vllm-project/router, docs/load_balancing/README.md, `Consistent Hash`: for `Multi-turn "
        "conversations`; every request names its conversation in `X-Session-ID`, to every program",
        environment="peers",
        package="vllm-router",
        intervals=_COMMON,
        fixed=_ROUTERS_FIXED,
    ),
    Rival(
        name="sglang-router",
        executable="sglang-router",
        command=_router("launch"),
        settings="--policy cache_aware --cache-threshold 0.5 --balance-abs-threshold 32 "
        "--balance-rel-threshold 1.5 --eviction-interval-secs 120 --max-tree-size 67108864",
        source="sgl-project/sglang, docs/advanced_features/sgl_model_gateway.md, `Cache-Aware Policy Tuning`",
        environment="peers",
        package="sglang-router",
        intervals=(Interval("--eviction-interval-secs", 120), *_COMMON),
        fixed=_ROUTERS_FIXED,
    ),
    Rival(
        name="smg",
        executable="smg",
        command=_router("launch"),
        settings="--policy cache_aware --cache-threshold 0.3 --balance-abs-threshold 64 "
        "--balance-rel-threshold 1.5",
        source=_SMG_DOCS,
        environment="peers",
        package="smg",
        intervals=(Interval("--eviction-interval-secs", 60), *_COMMON),
        fixed=_ROUTERS_FIXED,
    ),
    Rival(
        name="smg-low",
        executable="smg",
        command=_router("launch"),
        settings="--policy cache_aware --cache-threshold 0.3 --balance-abs-threshold 4 "
        "--balance-rel-threshold 1.2",
        source="lightseekorg/smg, docs/concepts/routing/cache-aware.md, `Tuning Guidelines`: "
        "`Lower thresholds (prevent queuing)`; the values are ours, "
        "because ten users a replica never differ by 64",
        environment="peers",
        package="smg",
        intervals=(Interval("--eviction-interval-secs", 60), *_COMMON),
        fixed=_ROUTERS_FIXED,
    ),
    Rival(
        name="litellm",
        executable="litellm",
        command=_litellm,
        settings="routing_strategy: least-busy (for `High concurrency scenarios`; `simple-shuffle` is the "
        "one that it recommends, but it ignores load); one process per core; "
        "LITELLM_LOG=ERROR, LITELLM_MODE=PRODUCTION, set_verbose: False, json_logs: true, "
        "request_timeout: 600, a master key",
        source="LiteLLM's documentation, `Proxy - Load Balancing` and `Best Practices for Production`",
        environment="litellm",
        package="litellm",
        fixed="CPU time, which is about 1 ms per streamed chunk: so time is not compressed for it at all",
        scale_min=1.0,
        key=configs.LITELLM_KEY,
        variables={
            "LITELLM_LOG": "ERROR",
            "LITELLM_MODE": "PRODUCTION",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        },
        ready_s=120.0,
    ),
    Rival(
        name="haproxy",
        executable="haproxy",
        command=_haproxy,
        settings="balance leastconn, http-reuse always, option http-no-delay, check inter 2s, nbthread 1; "
        "before all regions' replicas: `weight 3` for those of its own",
        source="HAProxy's configuration manual, `balance leastconn`: "
        "recommended `where very long sessions are expected`; the weights are ours",
        intervals=(configs.HAPROXY_CHECK,),
        fixed="timeouts of 600 s that nothing reaches; CPU time",
    ),
    Rival(
        name="nginx",
        executable="nginx",
        command=_nginx,
        settings='least_conn, keepalive 256, proxy_http_version 1.1, proxy_set_header Connection "", '
        "proxy_buffering off, worker_processes 1",
        source="nginx's documentation of ngx_http_upstream_module (`least_conn`, `keepalive`) "
        "and of `proxy_buffering`",
        intervals=(configs.NGINX_FAIL,),
        fixed="timeouts of 600 s that nothing reaches; CPU time",
    ),
)

BY_NAME = {rival.name: rival for rival in RIVALS}
