"""The flags that smg and sglang-router have besides those of `skylb.dropin.shared`.

Source: the ``--help`` of the programs. smg is the successor of sglang-router.
"""

from skylb.dropin.row import (
    Answer,
    Became,
    Outcome,
    Row,
    Unneeded,
    answered,
    becomes,
    rows,
    switched,
    unneeded,
)
from skylb.dropin.shared import DISAGGREGATED, PODS, RANKS, SELECTOR, SLICES, TRACES

BOTH = "sg"

ENGINES = (
    "SkyLB starts no engines: start each with its own command (vllm serve, python -m sglang.launch_server), "
    "and give SkyLB the URLs"
)
HISTORY = (
    "SkyLB stores no responses and no conversations. A response that an engine stores is found again at "
    "that engine"
)
PARSERS = "SkyLB passes answers on as the engine writes them: give the flag to the engine"
MEDIA = (
    "SkyLB passes pictures and sound on as they came: give the limit to the engine "
    "(vLLM's --allowed-media-domains)"
)
RULE = (
    "it tunes a rule that SkyLB does not have. SkyLB's default policy learns the speed of each replica: "
    "leave the flag out"
)
KEYS = "SkyLB has tenants with keys, limits and weights in one file"
ADMIN = "SkyLB guards what operators see and ask with one token"
CLASSES = "SkyLB has three classes of requests; a trusted proxy names the class in a header"
MESH = "SkyLB's balancers exchange their state over links of their own"
RING = "--policy ring --key-header x-smg-routing-key"
STICKY = "a ring sends equal keys to the same replica"
FOREIGN = "SkyLB runs no foreign code on requests: put a proxy that does in front of it"
TOKENIZER = "SkyLB needs no tokenizer: it compares the bytes of prompts"
OVERLOAD = "SkyLB sends a replica no more than it has room for, as its metrics say"
WARM = "SkyLB lets the share of a new replica grow over --engine-ramp-s"


def _engine(words: tuple[str, ...]) -> Outcome:
    if words[0] in {"openai", "anthropic"}:
        return Answer("SkyLB stands in front of engines, not of providers")
    return Unneeded("SkyLB finds out from its metrics what each replica is")


def _authorities(words: tuple[str, ...]) -> Outcome:
    if len(words) == 1:
        return Became(("--replica-ca", words[0]))
    return Answer("SkyLB takes one file: put the certificates into one", ("--replica-ca", "FILE"))


def _history(words: tuple[str, ...]) -> Outcome:
    return Unneeded("SkyLB stores nothing either") if words[0] == "none" else Answer(HISTORY)


def _keep_alive(words: tuple[str, ...]) -> Outcome:
    return Became(("--timeout-client-idle-s", words[0]))


GATEWAY: list[Row] = [
    *becomes("--tls-cert-path", BOTH, "--tls-cert"),
    *becomes("--tls-key-path", BOTH, "--tls-key"),
    *rows("--ca-cert-paths+", BOTH, _authorities, "`--replica-ca`: one file", ("--replica-ca",)),
    *answered("--client-cert-path --client-key-path", BOTH, "SkyLB shows replicas no certificate of its own"),
    *becomes("--shutdown-grace-period-secs", BOTH, "--drain-timeout-s"),
    *unneeded(
        "--disable-health-check!",
        BOTH,
        "SkyLB also serves replicas that answer no probe with metrics (--engine-blind-outstanding-max)",
    ),
    *answered("--dp-aware!", BOTH, RANKS),
    *answered("--dp-minimum-tokens-scheduler!", "s", RANKS),
    *rows(
        "--backend",
        "vsg",
        _engine,
        "engines: not needed. `openai`, `anthropic`: none, SkyLB stands in front of engines",
    ),
    *unneeded("--prometheus-duration-buckets+", BOTH, "SkyLB's histograms have buckets of their own"),
    *answered("--pd-disaggregation! --bucket-adjust-interval-secs", BOTH, DISAGGREGATED),
    *answered(
        "--epd-disaggregation! --encode+ --encode-policy --encode-selector+ --pd-admission-wait-secs "
        "--prefill-max-inflight-requests-per-worker --prefill-queue-size --prefill-queue-timeout-secs "
        "--kv-connector-annotation --kv-engine-id-annotation",
        "s",
        DISAGGREGATED,
    ),
    # policies
    *answered("--assignment-mode --max-idle-secs", BOTH, STICKY, RING),
    *answered(
        "--sticky-sessions! --sticky-key-idle-secs --routing-key-override!",
        "s",
        STICKY,
        RING,
    ),
    *rows(
        "--routing-key-headers+",
        "s",
        lambda words: (
            Became(("--key-header", words[0]))
            if len(words) == 1
            else Answer("SkyLB takes one header", ("--key-header", *words[:1]))
        ),
        "`--key-header`: one header",
        ("--key-header",),
    ),
    *answered(
        "--prefix-token-count --prefix-hash-load-factor --prefix-hash-balance-abs-threshold "
        "--least-load-kv-pressure-weight --least-load-default-throughput --least-load-mean-prefill-tokens "
        "--least-load-max-waiting-requests --power-of-two-load-metric --balance-token-usage-threshold "
        "--overload-token-usage-threshold --cache-boundaries --cache-index --cache-ttl-secs "
        "--selection-policy --selection-accounting-ttl-ms --selection-temperature --overlap-decay "
        "--kv-index --block-size",
        "s",
        RULE,
    ),
    *unneeded(
        "--load-monitor-interval --disable-load-monitoring!", "s", "SkyLB probes where a rule needs it"
    ),
    *unneeded(
        "--worker-overload-protection! --worker-overload-waiting-requests --worker-overload-token-usage "
        "--worker-overload-shed!",
        "s",
        OVERLOAD,
    ),
    *switched(
        "--disable-worker-overload-protection!",
        "s",
        ("--engine-push", "blind"),
        "a request then goes to a replica at once",
    ),
    *becomes("--worker-wedge-secs", "s", "--engine-wedged-s"),
    *becomes("--worker-warmup-secs", "s", "--engine-ramp-s"),
    *unneeded(
        "--worker-warmup-share --worker-warmup-blocks --worker-warmup-thin-ratio "
        "--worker-warmup-divert-every",
        "s",
        WARM,
    ),
    *unneeded(
        "--worker-stall-secs --worker-stale-secs --worker-startup-delay --remove-unhealthy-workers! "
        "--no-remove-unhealthy-workers! --worker-auto-recovery! --no-worker-auto-recovery!",
        "s",
        "SkyLB probes a replica that is down until it answers, and then takes it in",
    ),
    # connections
    *becomes("--header-read-timeout-secs", "s", "--timeout-head-s"),
    *rows(
        "--idle-connection-timeout-secs",
        "s",
        _keep_alive,
        "`--timeout-client-idle-s`",
        ("--timeout-client-idle-s",),
    ),
    *becomes("--upstream-pool-idle-timeout-secs", "s", "--timeout-upstream-idle-s"),
    *becomes("--stream-body-stall-timeout-secs", "s", "--timeout-body-s", "it bounds the whole body"),
    *becomes("--sse-keepalive-secs", "s", "--timeout-stream-keep-alive-s"),
    *answered("--upstream-http2!", "s", "SkyLB speaks HTTP/1.1 to replicas"),
    *unneeded("--max-buffered-request-bytes", "s", "--buffer-bytes-max bounds all bodies together"),
    *answered(
        "--health-check-port",
        "s",
        "SkyLB's admin listener answers probes too, at /health and /ready",
        "--admin HOST:PORT",
    ),
    # logs
    *switched("--log-json!", "s", ("--log-format", "json")),
    *unneeded(
        "--log-mm-timing! --jemalloc-prof-dir --job-queue-capacity --job-queue-concurrency "
        "--max-background-responses",
        "s",
        "it concerns parts that SkyLB does not have",
    ),
    *answered("--enable-trace! --otlp-traces-endpoint", "vsg", TRACES),
    # Kubernetes, files
    *answered("--discovery-provider --discovery-check-interval-secs", "s", SLICES, SELECTOR),
    *answered(
        "--discovery-file", "s", "SkyLB's file has one URL a line, and is read again", "--replicas-file FILE"
    ),
    *answered("--model-id-from --router-selector+", "s", PODS),
    # tenants, keys
    *answered("--tenant-api-key", "s", KEYS, "--keys-file FILE"),
    *answered("--tenant-rate-limit-enabled! --tenant-rate-limit-config", "s", KEYS, "--keys-file FILE"),
    *answered(
        "--trust-tenant-header! --tenant-header-name",
        "s",
        "SkyLB takes the tenant from a proxy that it trusts by its address",
        "--tenant-header NAME --trusted-proxies NETWORK",
    ),
    *answered("--control-plane-api-keys+", BOTH, ADMIN, "--admin-token-file FILE"),
    *answered(
        "--control-plane-audit-enabled! --jwt-issuer --jwt-audience --jwt-jwks-uri --jwt-role-mapping+",
        BOTH,
        ADMIN,
        "--admin-token-file FILE",
    ),
    *answered(
        "--priority-scheduler-enabled! --priority-scheduler-default-max-class --priority-scheduler-config "
        "--priority-scheduler-tenant-metric-top-n",
        "s",
        CLASSES,
        "--class-header NAME --trusted-proxies NETWORK",
    ),
    # several balancers
    *answered(
        "--enable-mesh! --mesh-server-name --mesh-host --mesh-advertise-host --mesh-port --mesh-peer-urls+ "
        "--mesh-tls-ca-cert --mesh-tls-cert --mesh-tls-key",
        "s",
        MESH,
        "--name NAME --region REGION --peer URL --peer-key-file FILE --peer-listen HOST:PORT "
        "--sync-listen HOST:PORT",
    ),
    # models, parsers, stored responses
    *unneeded("--model-path", BOTH, TOKENIZER),
    *unneeded("--model", "s", TOKENIZER),
    *unneeded(
        "--tokenizer-path --chat-template --tokenizer-cache-enable-l0! --tokenizer-cache-l0-max-entries "
        "--tokenizer-cache-enable-l1! --tokenizer-cache-l1-max-memory",
        BOTH,
        TOKENIZER,
    ),
    *unneeded("--tokenizer-cache-l0-max-memory --disable-tokenizer-autoload!", "s", TOKENIZER),
    *answered("--model-alias", "s", "SkyLB renames no models: give vLLM's --served-model-name several names"),
    *answered("--reasoning-parser --tool-call-parser", BOTH, PARSERS),
    *answered("--parser", "s", PARSERS),
    *answered("--mcp-config-path", BOTH, "SkyLB calls no tools: give the tool server to the engine"),
    *rows("--history-backend", "vsg", _history, f"`none`: not needed. Else none: {HISTORY}"),
    *answered(
        "--oracle-wallet-path --oracle-tns-alias --oracle-connect-descriptor --oracle-username "
        "--oracle-password --oracle-pool-min --oracle-pool-max --oracle-pool-timeout-secs "
        "--postgres-db-url --postgres-pool-max --redis-url --redis-pool-max --redis-retention-days",
        BOTH,
        HISTORY,
    ),
    *answered(
        "--oracle-external-auth! --postgres-op-timeout-secs --redis-op-timeout-secs --schema-config "
        "--history-memory-max-items --history-memory-max-responses --history-memory-retention-secs "
        "--storage-context-headers+ --storage-hook-wasm-path",
        "s",
        HISTORY,
    ),
    *answered("--enable-wasm!", "s", FOREIGN),
    *answered(
        "--enable-rl! --rl-control-timeout-secs --rl-fanout-concurrency",
        "s",
        "SkyLB passes no operators' endpoints of engines on: ask the engines themselves",
    ),
    *answered(
        "--mm-allowed-media-domains --mm-allow-private-media-hosts! --mm-per-request-image-limit "
        "--mm-pixel-cache-mb --mm-pixel-rdma! --mm-processing --multimodal-tensor-transport "
        "--multimodal-shm-min-bytes --multimodal-max-inflight-bytes --rdma-listen-ip --rdma-slot-ttl-s",
        "s",
        MEDIA,
    ),
    *answered("--zmq-engine-count", "s", ENGINES),
]

SERVE: list[Row] = answered(
    "--connection-mode --servicer-impl --data-parallel-size --dp-size --worker-host --worker-base-port "
    "--worker-startup-timeout --enable-token-usage-details! --router-disable-arg-fallback!",
    "s",
    ENGINES,
    "--replica URL",
)
"""What ``smg serve`` has besides, which starts engines. Its router's flags begin with ``--router-``."""
