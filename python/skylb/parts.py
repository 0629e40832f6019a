"""Makes the parts of a balancer from its settings; `skylb.app` puts them together."""

import random
from collections.abc import Callable

from skylb import _core
from skylb.accesslog import Logs
from skylb.clock import monotonic_ns, unix_offset_ns
from skylb.config import EngineSettings, Settings
from skylb.control.naming import make
from skylb.data.context import Budget, Context, Limits, request_ids
from skylb.data.cors import Cors
from skylb.data.crossing import Crossing
from skylb.data.keyring import Keyring
from skylb.data.peerside import PeerFrontend
from skylb.data.reading import Reading
from skylb.data.tenants import Tenants
from skylb.discovery.kubernetes.api import check_config
from skylb.errors import ConfigError
from skylb.handover.state import Secrets, check_directory
from skylb.isolation import IsolationKey, read_isolation_key
from skylb.keyfiles import read_keys, read_secret, read_tenants
from skylb.keys.ring import read_ring
from skylb.listeners import ServerTls, check_authorities, client_tls
from skylb.localrouter import LocalRouter
from skylb.mesh.mesh import Mesh, check_mesh
from skylb.mesh.signing import Keys, block_secret
from skylb.mesh.tls import MeshTls
from skylb.recording import Balancer, Recording
from skylb.recording import check as check_recording
from skylb.router import RequestRouter
from skylb.tracing.collector import Collector, read_headers
from skylb.tracing.exporter import SpanExporter
from skylb.upstream import Pool

LOG_BYTES_MAX = 4 << 20
"""Access-log lines that wait for the writer: about 8,000, or one second at 8,000 requests/s."""

PEER_CONNECTIONS_IDLE_MAX = 64
PEER_IDLE_S = 60.0
"""Below the 75 s after which a peer closes idle connections: a new one costs a forward two round trips."""

PEER_RECEIVE_BUFFER_BYTES = 256 << 10
"""More than for a replica: it bounds what one connection carries per round trip."""


def check_files(settings: Settings) -> None:
    """Reads every file that the settings name, and starts nothing.

    Raises:
        ConfigError: with the faults of all of them.
    """
    faults: list[str] = []
    readers: tuple[Callable[[], object], ...] = (
        lambda: server_tls(settings),
        lambda: check_authorities(settings.replica_ca, "replica_ca"),
        lambda: read_secret(settings.admin_token_file, "admin_token_file"),
        lambda: read_secret(settings.replica_key_file, "replica_key_file"),
        lambda: read_secret(settings.probe_key_file, "probe_key_file"),
        lambda: read_keys(settings.mesh.peer_key_file),
        lambda: read_tenants(settings.mesh.tenant_key_file),
        lambda: read_isolation_key(settings.mesh.isolation_key_file),
        lambda: read_ring(settings.keys_file) if settings.keys_file is not None else None,
        lambda: check_mesh(settings),
        lambda: make(settings),
        lambda: check_config(settings.kubernetes.config),
        lambda: check_recording(settings.record),
        lambda: check_directory(settings.state_dir) if settings.state_dir is not None else None,
        lambda: read_headers(settings.otlp.headers_file),
        lambda: client_tls(settings.otlp.ca, "otlp.ca"),
    )
    for read in readers:
        try:
            read()
        except ConfigError as error:
            faults += error.faults
    if faults:
        raise ConfigError(faults)


def isolation(settings: Settings, keys: Keys | None, kept: Secrets | None = None) -> IsolationKey | None:
    """The key that gives each tenant a prefix cache of its own, where they are isolated.

    ``kept``: of the process before this one, whose key counts where nothing gives one.

    Raises:
        ConfigError: the file of the key is no good.
    """
    own = settings.mesh
    before = None if kept is None else kept.isolation
    return IsolationKey(own.isolation_key_file, keys, before) if own.isolate_tenants else None


def secrets(
    settings: Settings, keys: Keys | None, isolation: IsolationKey | None, kept: Secrets | None
) -> Secrets:
    """What the engine's hashes are keyed by.

    The secret is shared with peers where they send each other hashes. Else it is that of the process before
    this one (``kept``), or drawn.
    """
    shared = keys if settings.mesh.compares_prompts else None
    blocks = block_secret(shared) if shared is not None or kept is None else kept.blocks
    return Secrets(blocks, None if isolation is None else isolation.key)


def engine(settings: Settings, secrets: Secrets) -> _core.Engine:
    """The engine.

    Raises:
        ConfigError: a value is none that it takes.
    """
    seed = settings.seed if settings.seed is not None else random.SystemRandom().getrandbits(64)
    try:
        engine = _core.Engine(settings.engine.model_dump_json().encode(), secrets.blocks, seed)
    except ValueError as error:
        raise ConfigError([f"engine: {error}"]) from error
    if secrets.isolation is not None:
        engine.isolate(secrets.isolation)
    keep_ids(engine, settings)
    engine.keep_receipts(settings.receipts, monotonic_ns())
    return engine


def keep_ids(engine: _core.Engine | _core.RemoteEngine, settings: Settings) -> None:
    """Has the ids of streams kept that may go on elsewhere."""
    models = list(settings.continue_models)
    kept = (settings.continue_bytes_max, settings.continue_tokens_max)
    engine.keep_ids(*kept, models, settings.continue_by_text)
    engine.set_continuing(settings.continue_streams)


def server_tls(settings: Settings) -> ServerTls | None:
    """What the client listeners show, if they speak TLS."""
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    return ServerTls(settings.tls_cert, settings.tls_key, settings.tls_client_ca)


def recorder(settings: Settings) -> _core.Recorder:
    """Counts requests, and writes the access log."""
    formats = {"text": _core.LOG_TEXT, "logfmt": _core.LOG_LOGFMT, "json": _core.LOG_JSON}
    log_format = _core.LOG_OFF if settings.access_log == "off" else formats[settings.log_format]
    made = _core.Recorder(log_format, LOG_BYTES_MAX, settings.engine.policy, unix_offset_ns())
    if settings.receipts:
        made.name_requests()  # so that `skylb why` can be asked about a line
    return made


def recording(settings: Settings, recorder: _core.Recorder, source: LocalRouter) -> Recording | None:
    """The recording of what arrives, where the settings want one."""
    if settings.record is None:
        return None
    engine = settings.engine
    defaults = EngineSettings()
    changed = {
        name: value
        for name, value in engine.model_dump().items()
        if value is not None and value != getattr(defaults, name)
    }
    return Recording(
        settings.record,
        recorder=recorder,
        source=source,
        balancer=Balancer(
            settings.mesh.region, changed, max(1, round(engine.block_bytes / engine.bytes_per_token))
        ),
        bytes_max=settings.record_bytes_max,
        block_bytes=engine.block_bytes,
    )


def span_exporter(settings: Settings, recorder: _core.Recorder) -> SpanExporter | None:
    """What posts spans, and has the recorder make them; ``None`` where no collector is given.

    Raises:
        ConfigError: a file is no good.
    """
    own = settings.otlp
    if own.endpoint is None:
        return None
    named = [pair.split("=", 1) for pair in own.resource]
    resource = {
        "service.name": own.service_name,
        "service.version": _core.__version__,
        "service.instance.id": settings.mesh.balancer,
        "skylb.region": settings.mesh.region,
        **dict(named),
    }
    slow_ns = int(own.slow_s * 1e9)
    recorder.export_spans(list(resource.items()), slow_ns, own.queue_bytes_max, unix_offset_ns())
    tls = client_tls(own.ca, "otlp.ca")
    collector = Collector(own.endpoint, read_headers(own.headers_file), timeout_s=own.timeout_s, tls=tls)
    return SpanExporter(recorder, collector)


def logs(settings: Settings, recorder: _core.Recorder) -> Logs:
    """Where messages and the access log go.

    Raises:
        ConfigError: the file cannot be opened.
    """
    try:
        return Logs(
            recorder, access_log=settings.access_log, log_format=settings.log_format, level=settings.log_level
        )
    except OSError as error:
        raise ConfigError(
            [f"access_log: {settings.access_log}: cannot be opened: {error.strerror}"]
        ) from error


def context(
    settings: Settings,
    router: RequestRouter,
    pool: Pool,
    recorder: _core.Recorder,
    keyring: Keyring | None = None,
) -> Context:
    """What the connections of all clients share."""
    return Context(
        router=router,
        pool=pool,
        recorder=recorder,
        parser=_core.HeadParser(settings.key_header, settings.cors_origin is not None, settings.class_header),
        budget=Budget(settings.buffer_bytes_max),
        limits=Limits(
            timeouts=settings.timeout,
            body_bytes_max=settings.body_bytes_max,
            connections_max=settings.connections_max,
            retry_after_s=settings.engine.retry_after_s,
        ),
        reading=Reading(router.scanner(), settings.mesh.peer_listen is not None),
        trusted_proxies=settings.trusted_proxies,
        cors=Cors(settings.cors_origin),
        tenants=Tenants(
            settings.mesh.tenant_header.lower() if settings.mesh.tenant_header else None, keyring=keyring
        ),
        inject_usage=settings.inject_usage,
        isolates=settings.mesh.isolate_tenants,
        ids=request_ids(settings.otlp.sample_ratio if settings.otlp.endpoint is not None else None),
    )


def replica_pool(settings: Settings) -> Pool:
    """Connections to replicas."""
    return Pool(
        idle_len_max=settings.upstream_idle_max,
        idle_s=settings.timeout.upstream_idle_s,
        connect_timeout_s=settings.timeout.connect_s,
        tls=client_tls(settings.replica_ca),
    )


def share(settings: Settings) -> Settings:
    """The settings of one worker: its part of the bounds that hold for the whole balancer."""
    workers = settings.workers
    return settings.model_copy(
        update={
            "buffer_bytes_max": max(1, settings.buffer_bytes_max // workers),
            "connections_max": max(1, settings.connections_max // workers),
            "continue_bytes_max": max(1, settings.continue_bytes_max // workers),
            "upstream_idle_max": -(-settings.upstream_idle_max // workers),
        }
    )


def peer_pool(pool: Pool, tls: MeshTls) -> Pool:
    """Connections to peers; ``pool``: those to replicas."""
    return pool.sibling(
        idle_len_max=PEER_CONNECTIONS_IDLE_MAX,
        receive_buffer_bytes=PEER_RECEIVE_BUFFER_BYTES,
        idle_s=PEER_IDLE_S,
        far=True,
        tls=tls.client,
    )


def peer_frontend(settings: Settings, mesh: Mesh, context: Context) -> PeerFrontend:
    """The listener for forwards; the context of all listeners gets what is needed to send some."""
    pool = peer_pool(context.pool, mesh.tls)
    shows = mesh.peers.shows
    context.crossing = Crossing(mesh.identity, mesh.verifier, pool, mesh.forwards_refused, shows)
    frontend = PeerFrontend(context, context.crossing)
    frontend.shortage = context.pool.shortage
    frontend.connections_max = settings.mesh.peer_connections_max
    return frontend
