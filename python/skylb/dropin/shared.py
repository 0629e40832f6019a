"""The flags of vllm-router and what it has in common with smg and sglang-router: all three have one origin.

Source: the ``--help`` of the programs, and what they did where the text leaves a question open. vllm-router
and smg also come as Rust programs, with a few flags more; those are from their documents.
"""

import re

from skylb.dropin.row import (
    Answer,
    Became,
    Outcome,
    Row,
    Unneeded,
    answered,
    becomes,
    part,
    rows,
    shared,
    switched,
    unneeded,
)

ALL = "vsg"

ATTEMPTS_MAX = 5
"""The most that --engine-attempts-max takes."""

_ATTEMPTS = re.compile(r"[0-9]{1,18}")

EJECT_MAX_S = 30.0
"""The default of --engine-eject-max-s, which may not be below --engine-eject-s."""

DISAGGREGATED = (
    "SkyLB has no pools for prefill and decode. It sends whole requests to replicas that do both. "
    "Keep the other router for a fleet that is split, and put SkyLB in front of it: "
    "the router's URL is a replica then"
)
SLICES = "SkyLB watches the EndpointSlices of Services, not pods"
SELECTOR = "--kubernetes-selector LABELS"
PODS = (
    "it finds pods by their labels. SkyLB finds EndpointSlices by the labels of their Services: "
    "give the pods a headless Service with these labels"
)
EVENTS = "it belongs to the policy kv_aware. SkyLB learns from answers and metrics what a replica caches"
RANKS = (
    "SkyLB takes an engine with several data-parallel ranks as one replica. The engine's own API server "
    "spreads requests over the ranks: leave the flag out"
)
KEY = "everybody on a machine can read its command lines, so SkyLB reads keys from files"
KEY_OF_CLIENTS = (
    f"{KEY}. The replicas get the key of --replica-key-file, and clients are asked for one of --keys-file "
    "(skylb keys new makes one)"
)
KEY_OF_SOME = (
    f"{KEY_OF_CLIENTS}, as smg and sglang-router do. vllm-router asks clients for none: "
    "leave --keys-file out only if everybody who reaches it may be served"
)
TRACES = "SkyLB posts spans over HTTP, not gRPC: give --otlp-endpoint URL of the collector (docs/TRACING.md)"
BACKOFF = "SkyLB retries at another replica at once, within a budget of retries (--engine-retry-ratio)"
PROBES = "SkyLB reads the load of each replica from its /metrics every 0.1 to 1 s"

_CHOICE = "the default policy (predictive) does it from what answers and metrics say: leave the flag out"

POLICIES: dict[str, Outcome] = {
    "random": Became(("--policy", "round_robin"), "as even, in turn instead of drawn"),
    "power_of_two": Became(("--policy", "two_choices")),
    "least_load": Became(("--policy", "least_load")),
    "consistent_hash": Became(("--policy", "ring", "--key-header", "x-session-id")),
    "rendezvous_hash": Became(("--policy", "ring", "--key-header", "x-session-id")),
    "consistent_hashing": Became(("--policy", "ring", "--key-header", "x-smg-routing-key")),
    "kv_aware": Answer(f"SkyLB reads no events of KV caches. {_CHOICE.capitalize()}"),
    "sticky_least_loaded": Answer(
        "SkyLB keeps a session where its cache is, without an end that clients report",
        ("--policy", "predictive"),
    ),
    "manual": Answer(
        "SkyLB has no table of keys. A ring sends equal keys to the same replica",
        ("--policy", "ring", "--key-header", "x-smg-routing-key"),
    ),
    "prefix_hash": Answer("SkyLB compares whole prompts", ("--policy", "prefix")),
    "passthrough": Answer("it is for one worker. Any policy does for one replica: leave the flag out"),
}
"""By their name for a policy. ``cache_aware`` and ``round_robin`` have the same name and meaning here."""


LEVELS: dict[str, Outcome] = {
    "warn": Became(("--log-level", "warning")),
    "critical": Became(("--log-level", "error")),
    "trace": Became(("--log-level", "debug")),
}
"""By their name for a level, where ours is another."""


def _origins(words: tuple[str, ...]) -> Outcome:
    if len(words) == 1:
        return Became(("--cors-origin", words[0]))
    return Answer("SkyLB takes one origin, or * for all", ("--cors-origin", "*"))


def _attempts(words: tuple[str, ...]) -> Outcome:
    text = words[0]
    if _ATTEMPTS.fullmatch(text) is None:
        return Became(("--engine-attempts-max", text))  # what is wrong with it, the option says
    attempts = min(max(int(text), 1), ATTEMPTS_MAX)
    note = f"{ATTEMPTS_MAX} is the most" if int(text) > ATTEMPTS_MAX else ""
    return Became(("--engine-attempts-max", str(attempts)), note)


def _ejection(words: tuple[str, ...]) -> Outcome:
    made = ("--engine-eject-s", words[0])
    try:
        longer = float(words[0]) > EJECT_MAX_S
    except ValueError:
        longer = False
    return Became((*made, "--engine-eject-max-s", words[0]) if longer else made)


def _ranks(words: tuple[str, ...]) -> Outcome:
    return Unneeded("it is one rank") if words[0] == "1" else Answer(RANKS)


def _concurrent(words: tuple[str, ...]) -> Outcome:
    if words[0] == "-1":
        return Unneeded("it sets no limit")
    return Answer(
        "it limits all requests together. SkyLB limits what each replica runs, and holds the rest",
        ("--engine-in-flight-max", words[0]),
    )


def _request_ids(words: tuple[str, ...]) -> Outcome:
    if "x-request-id" in {word.lower() for word in words}:
        return Unneeded("SkyLB takes X-Request-Id from clients, and no other header")
    return Answer("SkyLB takes X-Request-Id alone: let the proxy in front set it")


def _timeout(words: tuple[str, ...]) -> Outcome:
    note = "it bounds the wait for the first byte. A stream may then last as long as it is not silent"
    return Became(("--timeout-first-byte-s", words[0], "--timeout-answer-s", words[0]), note)


SHARED: list[Row] = [
    *part("--host", "vsgp", "listen", "host"),
    *part("--port", "vsgp", "listen", "port"),
    *part("--prometheus-host", ALL, "admin", "host"),
    *part("--prometheus-port", ALL, "admin", "port"),
    *rows(
        "--worker-urls+",
        ALL,
        lambda words: Became(tuple(word for url in words for word in ("--replica", url))),
        "`--replica URL`, once for each",
        ("--replica",),
    ),
    *shared("--policy", ALL, POLICIES, "`--policy`: see the table of policies"),
    *becomes("--cache-threshold", ALL, "--engine-cache-aware-threshold"),
    *becomes("--cache-match-threshold", "s", "--engine-cache-aware-threshold"),
    *becomes("--balance-abs-threshold", ALL, "--engine-cache-aware-abs"),
    *becomes("--balance-rel-threshold", ALL, "--engine-cache-aware-rel"),
    *becomes("--spill-abs-threshold", "s", "--engine-cache-aware-abs"),
    *becomes("--spill-rel-threshold", "s", "--engine-cache-aware-rel"),
    *unneeded(
        "--eviction-interval-secs --eviction-interval", ALL, "SkyLB evicts as it inserts into its tree"
    ),
    *unneeded("--max-tree-size", ALL, "--engine-tree-bytes-max bounds the tree, in bytes for all replicas"),
    *becomes("--max-payload-size", ALL, "--body-bytes-max"),
    *unneeded("--enable-igw!", ALL, "SkyLB always asks each replica for its models, and routes by them"),
    *answered("--api-key", "v", KEY, "--replica-key-file FILE"),
    *answered("--api-key", "sg", KEY_OF_CLIENTS, "--replica-key-file FILE --keys-file FILE"),
    *answered("--api-key", "", KEY_OF_SOME, "--replica-key-file FILE --keys-file FILE"),
    *answered("--log-dir", ALL, "SkyLB logs to stderr. The access log can go to a file", "--access-log FILE"),
    *shared(
        "--log-level",
        "vsgp",
        LEVELS,
        "`--log-level`; `warn` is `warning`, `critical` is `error`, `trace` is `debug`",
    ),
    *rows("--cors-allowed-origins+", ALL, _origins, "`--cors-origin`: one origin, or *", ("--cors-origin",)),
    *unneeded(
        "--worker-startup-timeout-secs --worker-startup-check-interval",
        ALL,
        "SkyLB starts at once, and takes in a replica when it answers, however long that takes",
    ),
    # time-outs, retries, health
    *rows(
        "--request-timeout-secs",
        ALL,
        _timeout,
        "`--timeout-first-byte-s` and `--timeout-answer-s`: it bounds the wait for the first byte",
        ("--timeout-first-byte-s", "--timeout-answer-s"),
    ),
    *rows(
        "--retry-max-retries",
        ALL,
        _attempts,
        f"`--engine-attempts-max`, at most {ATTEMPTS_MAX}: both count the first attempt",
        ("--engine-attempts-max",),
    ),
    *unneeded(
        "--retry-initial-backoff-ms --retry-max-backoff-ms --retry-backoff-multiplier --retry-jitter-factor",
        ALL,
        BACKOFF,
    ),
    *switched("--disable-retries!", ALL, ("--engine-attempts-max", "1")),
    *becomes("--cb-failure-threshold", ALL, "--engine-eject-failures"),
    *unneeded(
        "--cb-success-threshold",
        ALL,
        "after an ejection a replica gets one request, and then a growing share (--engine-ramp-s)",
    ),
    *rows(
        "--cb-timeout-duration-secs",
        ALL,
        _ejection,
        "`--engine-eject-s`, and `--engine-eject-max-s` where it is longer",
        ("--engine-eject-s", "--engine-eject-max-s"),
    ),
    *unneeded("--cb-window-duration-secs", ALL, "SkyLB counts failures in a row, whatever time they take"),
    *switched("--disable-circuit-breaker!", ALL, ("--engine-eject-ratio-max", "0")),
    *becomes("--health-check-timeout-secs", ALL, "--timeout-probe-s"),
    *unneeded(
        "--health-failure-threshold --health-success-threshold --health-check-interval-secs "
        "--health-check-endpoint",
        ALL,
        PROBES,
    ),
    # admission
    *rows(
        "--max-concurrent-requests",
        ALL,
        _concurrent,
        "-1: not needed. Else none: SkyLB limits each replica (`--engine-in-flight-max`) and holds the rest",
        ("--engine-in-flight-max",),
    ),
    *answered(
        "--queue-size",
        ALL,
        "their queue fills at a limit of requests. SkyLB's holds what no replica has room for: "
        "leave the flag out, or bound SkyLB's with --hold-len-max",
    ),
    *becomes("--queue-timeout-secs", ALL, "--hold-timeout-s"),
    *answered(
        "--rate-limit-tokens-per-second",
        ALL,
        "SkyLB limits requests and tokens of each tenant, not of all together",
        "--keys-file FILE",
    ),
    *rows(
        "--request-id-headers+",
        ALL,
        _request_ids,
        "X-Request-Id: not needed. Others: none, SkyLB takes X-Request-Id alone",
    ),
    # Kubernetes
    *answered("--service-discovery!", ALL, SLICES, SELECTOR),
    *rows(
        "--selector+",
        ALL,
        lambda words: Answer(PODS, ("--kubernetes-selector", ",".join(words))),
        f"none: {PODS}: use `--kubernetes-selector KEY=VALUE,…`",
        ("--kubernetes-selector",),
    ),
    *rows(
        "--service-discovery-port",
        ALL,
        lambda words: Answer("it belongs to --service-discovery", ("--kubernetes-port", words[0])),
        "none: it belongs to --service-discovery: use `--kubernetes-port`",
        ("--kubernetes-port",),
    ),
    *rows(
        "--service-discovery-namespace",
        ALL,
        lambda words: Answer("it belongs to --service-discovery", ("--kubernetes-namespace", words[0])),
        "none: it belongs to --service-discovery: use `--kubernetes-namespace`",
        ("--kubernetes-namespace",),
    ),
    # what is not there
    *answered("--prefill+ --decode --prefill-policy --decode-policy", ALL, DISAGGREGATED),
    *answered("--prefill-selector+ --decode-selector+", ALL, DISAGGREGATED),
    *answered("--mini-lb!", "vg", DISAGGREGATED),
    *answered(
        "--vllm-pd-disaggregation! --vllm-discovery-address --kv-connector --pd-kv-events", "v", DISAGGREGATED
    ),
    *answered(
        "--router-temperature --kv-penalty-host --kv-penalty-external --kv-penalty-disk "
        "--kv-aware-session-affinity-ttl-secs --kv-event-source --kv-event-replay-source "
        "--kv-event-block-size --kv-event-model",
        "v",
        EVENTS,
    ),
    *answered(
        "--enable-program-scheduling! --program-scheduling-config-json",
        "v",
        "SkyLB schedules requests, not programs of several. A session stays where its cache is",
    ),
    *answered(
        "--wasm-middleware --wasm-middleware-sha256 --wasm-middleware-route",
        "v",
        "SkyLB runs no foreign code on requests: put a proxy that does in front of it",
    ),
    *answered("--runtime", "v", "SkyLB finds out from its metrics what each replica is: leave the flag out"),
    *answered("--profile!", "v", "SkyLB passes no operators' endpoints of engines on"),
    *answered("--otel-sampling-ratio --otel-excluded-paths+", "v", TRACES),
    *answered(
        "--api-key-validation-urls+",
        "v",
        "SkyLB asks no other server about keys. It reads them from a file",
        "--keys-file FILE",
    ),
    *rows("--intra-node-data-parallel-size", "v", _ranks, f"1: not needed. Else none: {RANKS}"),
]
