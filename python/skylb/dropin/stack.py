"""The flags of the router of production-stack.

Source: its parser, ``src/vllm_router/parsers/parser.py`` of vllm-project/production-stack at commit 008a23b.
The project publishes it in its own container alone, under the name that another program has on PyPI.
"""

from skylb.dropin.row import (
    Answer,
    Became,
    Outcome,
    Row,
    Unneeded,
    answered,
    becomes,
    by_value,
    own_flags,
    rows,
    unneeded,
)
from skylb.dropin.shared import DISAGGREGATED, PODS, PROBES, SELECTOR, SLICES, TRACES

BATCH = "SkyLB has no files and no batch API: send the requests one by one, with the class low"
CACHE = "SkyLB answers nothing from a cache of its own"
ERRORS = "SkyLB reports to no service: errors are in its log, and in its metrics"
LMCACHE = "SkyLB asks no LMCache controller. It learns from answers and metrics what a replica caches"
FILE = "SkyLB reads settings from TOML, and the list of replicas again when it changes"

ROUTING: dict[str, Outcome] = {
    "roundrobin": Became(("--policy", "round_robin")),
    "session": Became(("--policy", "ring")),
    "prefixaware": Became(("--policy", "prefix"), "the load decides where too little of a prompt is cached"),
    "priority": Became(("--policy", "least_load")),
    "kvaware": Answer(LMCACHE, ("--policy", "predictive")),
    "disaggregated_prefill": Answer(DISAGGREGATED),
}
"""By its name for a rule."""

DISCOVERY: dict[str, Outcome] = {
    "static": Unneeded("the backends say it"),
    "k8s": Answer(SLICES, tuple(SELECTOR.split())),
}


def _split(words: tuple[str, ...]) -> Outcome:
    urls = (url.strip() for url in words[0].split(","))
    return Became(tuple(word for url in urls if url for word in ("--replica", url)))


def _kubernetes(option: str) -> list[Row]:
    theirs = {"selector": "--k8s-label-selector", "namespace": "--k8s-namespace", "port": "--k8s-port"}[
        option
    ]
    own = f"--kubernetes-{option}"
    why = PODS if option == "selector" else "it belongs to --service-discovery k8s"
    return rows(theirs, "p", lambda words: Answer(why, (own, words[0])), f"none: {why}: use `{own}`", (own,))


STACK: list[Row] = [
    *rows("--static-backends", "p", _split, "`--replica URL`, once for each", ("--replica",)),
    *unneeded("--static-models", "p", "SkyLB asks each replica for its models"),
    *answered(
        "--static-aliases", "p", "SkyLB renames no models: give vLLM's --served-model-name several names"
    ),
    *unneeded(
        "--static-model-types --static-backend-health-checks! --backend-health-check-timeout-seconds "
        "--engine-stats-interval",
        "p",
        PROBES,
    ),
    *rows(
        "--service-discovery",
        "p",
        by_value(DISCOVERY, "service discovery"),
        "`static`: not needed. `k8s`: none, use `--kubernetes-selector`",
        ("--kubernetes-selector",),
    ),
    *_kubernetes("selector"),
    *_kubernetes("namespace"),
    *_kubernetes("port"),
    *answered("--k8s-service-discovery-type --k8s-watcher-timeout-seconds", "p", PODS),
    *rows(
        "--routing-logic",
        "p",
        by_value(ROUTING, "routing logic"),
        "`--policy`: see the table of policies",
        own_flags(ROUTING.values()),
    ),
    *becomes("--session-key", "p", "--key-header"),
    *answered("--static-model-labels --prefill-model-labels --decode-model-labels", "p", DISAGGREGATED),
    *answered(
        "--lmcache-controller-port --lmcache-health-check-interval --lmcache-worker-timeout "
        "--kv-aware-threshold",
        "p",
        LMCACHE,
    ),
    *answered("--callbacks", "p", "SkyLB runs no foreign code on requests: put a proxy in front of it"),
    *unneeded("--request-rewriter", "p", "its only value, noop, rewrites nothing"),
    *answered("--enable-batch-api! --file-storage-class --file-storage-path --batch-processor", "p", BATCH),
    *unneeded(
        "--request-stats-window --log-stats! --log-stats-interval",
        "p",
        "the access log has a line per request, and /metrics has the sums",
    ),
    *answered("--dynamic-config-yaml --dynamic-config-json", "p", FILE, "--config FILE"),
    *answered("--feature-gates", "p", CACHE),
    *answered("--semantic-cache-model --semantic-cache-dir --semantic-cache-threshold", "p", CACHE),
    *answered("--sentry-dsn --sentry-traces-sample-rate --sentry-profile-session-sample-rate", "p", ERRORS),
    *answered("--otel-endpoint --otel-service-name --otel-secure!", "p", TRACES),
]
