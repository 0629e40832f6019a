"""What `skylb doctor` sees of the replicas, with what the balancer itself asks and reads them by."""

import asyncio
import contextlib
import dataclasses
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

import orjson

from skylb import parts
from skylb.config import Settings
from skylb.control.dialects import read_page
from skylb.control.models import BODY_BYTES_MAX, Listing, read_models
from skylb.control.pages import FIGURES, get_request
from skylb.control.plane import bearer
from skylb.control.probe import PAGE_BYTES_MAX
from skylb.discovery.source import Lack, Offered, Site
from skylb.discovery.sources import make
from skylb.errors import ConfigError, ConnectError, SkyLBError
from skylb.keyfiles import read_secret
from skylb.tasks import TaskGroup
from skylb.tools.doctor.findings import Report, in_order
from skylb.types import Replica
from skylb.upstream import Fetch, Pool, Response

AT_ONCE_MAX = 64
"""Replicas that are looked at side by side."""

LOOK_S = 5.0
"""For finding all replicas of all sources."""

ASK_S = 20.0
"""For a request of one token."""

SKEW_S = 5.0
"""A clock that is further from ours is worth a line. A date has whole seconds, and travels."""

VERSION_BYTES_MAX = 64 << 10
VERSION_LEN_MAX = 40

MODELS_SHOWN_MAX = 3

UNAUTHORIZED = frozenset({401, 403})

TROUBLES = {
    Lack.UNRESOLVED: ("replica", "the name does not resolve", "correct the name, or its DNS"),
    Lack.UNREAD: ("replicas", "the file cannot be used", "correct the file"),
    Lack.UNLISTED: (
        "replicas",
        "the list of Kubernetes is not complete",
        "see the API server, the rights of the account, and --kubernetes-port",
    ),
}
"""Area, text and fix, by what a source lacks."""

MATTERS = {
    "kv_tokens": "the size of its KV cache (--engine-replica-kv-tokens is assumed)",
    "kv_usage": "how full its KV cache is",
    "cache_queries": "hits of its prefix cache",
    "cache_hits": "hits of its prefix cache",
}
"""Figures of a metrics page whose absence has an effect, and which."""

_CACHING = re.compile(rb'enable_prefix_caching="(\w+)"')


@dataclass(slots=True)
class Seen:
    """What was seen of one replica."""

    replica: Replica
    models: Listing | None = None


async def find(settings: Settings, report: Report) -> list[Replica]:
    """The replicas of all sources, resolved; those without an address are faults."""
    offered: dict[str, Offered] = {}

    def offer(_: str, found: Sequence[Offered]) -> None:
        offered.update((replica.name, replica) for replica in found)

    tasks = TaskGroup()
    try:
        sources = make(settings, settings.discovery, Site(offer, lambda _: True))
        for source in sources:
            await source.load()
            tasks.start(source.run(), name=source.name)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_S):
                for source in sources:
                    await source.passed.wait()
    except ConfigError as error:
        for fault in error.faults:
            report.fault("replicas", fault, "correct the source of replicas")
        return []
    finally:
        await tasks.stop()
    for source in sources:
        for name, trouble in source.troubles().items():
            area, text, fix = TROUBLES[trouble.lack]
            report.fault(area, f"{text}: {trouble.why}", fix, name)
    if not offered:
        report.fault("replicas", "there are none", "see the source of replicas")
    keys = _keys(settings)
    return [
        Replica(number, one.name, one.address, one.authority, *keys)
        for number, one in enumerate(offered.values(), 1)
    ]


def _keys(settings: Settings) -> tuple[str | None, str | None]:
    """``Authorization`` of requests, and of probes; a file that cannot be read was a fault before."""
    with contextlib.suppress(ConfigError):
        key = read_secret(settings.replica_key_file, "replica_key_file")
        probe_key = read_secret(settings.probe_key_file, "probe_key_file")
        return bearer(key), bearer(key if probe_key is None else probe_key)
    return None, None


async def look(settings: Settings, replicas: Sequence[Replica], report: Report, *, ask: bool) -> list[Seen]:
    """Asks each replica what the balancer would, and compares the answers; those that were reached.

    ``ask``: a token as well.
    """
    pool = parts.replica_pool(settings)
    turns = asyncio.Semaphore(AT_ONCE_MAX)
    asker = _Asker(pool, settings.timeout.probe_s)

    async def one(replica: Replica, own: Report) -> Seen | None:
        async with turns:
            seen = await _look_at(asker, replica, own)
            if ask and seen is not None:
                await _ask_a_token(asker, seen, own)
            return seen

    try:
        found = await in_order(report, one, replicas)
    finally:
        await pool.close()
    reached = [seen for seen in found if seen is not None]
    _compare(reached, report)
    return reached


class _Asker:
    """Requests over the balancer's own connections."""

    def __init__(self, pool: Pool, timeout_s: float) -> None:
        self._pool = pool
        self._timeout_s = timeout_s

    async def get(
        self, replica: Replica, path: str, accept: str = "application/json", bytes_max: int = BODY_BYTES_MAX
    ) -> Response | SkyLBError:
        """A GET as probes send it: the answer, or why there is none."""
        request = get_request(path, accept, replica)
        return await self.send(replica, request, self._timeout_s, bytes_max)

    async def send(
        self, replica: Replica, request: bytes, timeout_s: float, bytes_max: int
    ) -> Response | SkyLBError:
        """Any request, head and body: the answer, or why there is none."""
        answer: asyncio.Future[Response | SkyLBError] = asyncio.get_running_loop().create_future()
        fetch = Fetch(
            self._pool,
            replica,
            request,
            timeout_s=timeout_s,
            body_bytes_max=bytes_max,
            done=answer.set_result,
        )
        try:
            return await answer
        finally:
            fetch.cancel()


async def _look_at(ask: _Asker, replica: Replica, report: Report) -> Seen | None:
    name = replica.name
    page = await ask.get(replica, "/metrics", "text/plain", PAGE_BYTES_MAX)
    if isinstance(page, ConnectError):
        why = str(page).removeprefix(f"{name}: ")
        report.fault(
            "replica", f"not reached at {_place(replica)}: {why}", "start it, or correct its URL", name
        )
        return None
    seen = Seen(replica)
    version = await _version(ask, replica, report)
    facts = _read_metrics(seen, page, report)
    facts[:1] = [f"{facts[0]} {version}".rstrip()] if facts else [f"version {version}"] * bool(version)
    facts += await _list_models(ask, seen, report)
    await _try_request_key(ask, seen, report)
    report.ok("replica", "; ".join(facts) or "it answers", name)
    return seen


def _place(replica: Replica) -> str:
    address = replica.address
    return address.host if address.unix else f"{address.host} port {address.port}"


async def _version(ask: _Asker, replica: Replica, report: Report) -> str:
    """The engine's version; empty where it does not say it."""
    answer = await ask.get(replica, "/version", bytes_max=VERSION_BYTES_MAX)
    if not isinstance(answer, Response):
        return ""
    _compare_clock(replica.name, answer.date, report)
    with contextlib.suppress(orjson.JSONDecodeError, AttributeError):
        version = orjson.loads(answer.body).get("version")
        if answer.status == 200 and isinstance(version, str) and version.isprintable():
            return version[:VERSION_LEN_MAX]
    return ""


def _compare_clock(name: str, date: str | None, report: Report) -> None:
    """Engines' clocks are used for nothing; they are compared because people compare logs."""
    with contextlib.suppress(TypeError, ValueError):
        if date is None:
            return
        ahead_s = parsedate_to_datetime(date).timestamp() - time.time()
        if abs(ahead_s) > SKEW_S:
            where = "ahead of" if ahead_s > 0 else "behind"
            report.warn(
                "replica",
                f"its clock is {abs(ahead_s):.0f} s {where} this machine's",
                "run NTP on both",
                name,
            )


def _read_metrics(seen: Seen, page: Response | SkyLBError, report: Report) -> list[str]:
    """What the metrics page says of the engine."""
    name = seen.replica.name
    blind = "it is blind: --engine-blind-outstanding-max requests at most are sent to it"
    if not isinstance(page, Response):
        why = str(page).removeprefix(f"{name}: ")
        report.warn(
            "replica", f"/metrics cannot be read ({why}), so {blind}", "see why it answers late", name
        )
        return []
    if page.status in UNAUTHORIZED:
        report.fault(
            "replica",
            f"/metrics answers {page.status}, so {blind}",
            "--probe-key-file with the engine's key, or open /metrics",
            name,
        )
        return []
    read = read_page(page.body, None) if page.status == 200 else None
    if read is None:
        why = "has no load that SkyLB knows" if page.status == 200 else f"answers {page.status}"
        report.warn("replica", f"/metrics {why}, so {blind}", "see that the engine serves its metrics", name)
        return []
    snapshot, dialect = read
    absent = [figure for figure in FIGURES if getattr(snapshot, figure) is None]
    effects = dict.fromkeys(MATTERS[figure] for figure in absent if figure in MATTERS)
    if effects:
        report.warn(
            "replica",
            f"/metrics does not say {', nor '.join(effects)}",
            "a later version of the engine",
            name,
        )
    facts = [dialect.name]
    if snapshot.kv_tokens is not None:
        facts.append(f"KV cache of {snapshot.kv_tokens} tokens")
    if (caching := _CACHING.search(page.body)) is not None:
        if caching[1] == b"True":
            facts.append("prefix caching on")
        else:
            report.warn(
                "replica",
                "prefix caching is off: no prompt is found in its cache",
                "start the engine with --enable-prefix-caching",
                name,
            )
    if snapshot.sleeping:
        report.warn("replica", "it sleeps, and gets no requests", "wake it up", name)
    return facts


async def _list_models(ask: _Asker, seen: Seen, report: Report) -> list[str]:
    """Its models, for people."""
    replica = seen.replica
    answer = await ask.get(replica, "/v1/models")
    why = ""
    if not isinstance(answer, Response):
        why = str(answer).removeprefix(f"{replica.name}: ")
    elif answer.status in UNAUTHORIZED:
        _refused_list(seen, answer.status, report)
        return []
    elif answer.status != 200:
        why = f"it answers {answer.status}"
    else:
        try:
            seen.models = read_models(answer.body)
        except ValueError as error:
            why = str(error)
    if seen.models is None:
        report.warn(
            "replica",
            f"/v1/models cannot be read ({why}), so it gets requests for any model",
            "see why the engine does not list its models",
            replica.name,
        )
        return []
    listed = [f"{name} (up to {length} tokens)" if length else name for name, length in seen.models.models]
    over = len(listed) - MODELS_SHOWN_MAX
    more = [f"and {over} more"] if over > 0 else []
    return [", ".join([*listed[:MODELS_SHOWN_MAX], *more]) or "no model"]


def _refused_list(seen: Seen, status: int, report: Report) -> None:
    if seen.replica.probe_authorization is None:
        report.warn(
            "replica",
            f"/v1/models answers {status} without a key, so /v1/models of SkyLB does not list its models. "
            "Clients that bring the engine's key are served",
            "--probe-key-file with the engine's key",
            seen.replica.name,
        )
    else:
        report.fault(
            "replica",
            f"/v1/models answers {status}: the engine does not take the key for probes",
            "correct --probe-key-file or --replica-key-file",
            seen.replica.name,
        )


async def _try_request_key(ask: _Asker, seen: Seen, report: Report) -> None:
    """Whether the engine takes the key that requests get, where it is another than that of probes."""
    replica = seen.replica
    if replica.authorization is None or replica.authorization == replica.probe_authorization:
        return
    answer = await ask.get(
        dataclasses.replace(replica, probe_authorization=replica.authorization), "/v1/models"
    )
    if isinstance(answer, Response) and answer.status in UNAUTHORIZED:
        report.fault(
            "replica",
            f"the engine does not take the key for requests ({answer.status})",
            "correct --replica-key-file",
            replica.name,
        )


async def _ask_a_token(ask: _Asker, seen: Seen, report: Report) -> None:
    """Sends a request of one token: whether it is served, and whether the answer says what was cached."""
    replica, models = seen.replica, seen.models
    if models is None or not models.models:
        return
    body = orjson.dumps({"model": models.models[0][0], "prompt": "Hello", "max_tokens": 1})
    lines = [
        "POST /v1/completions HTTP/1.1",
        f"Host: {replica.authority}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    ]
    if replica.authorization is not None:
        lines.append(f"Authorization: {replica.authorization}")
    request = "\r\n".join([*lines, "", ""]).encode("latin-1") + body
    answer = await ask.send(replica, request, ASK_S, BODY_BYTES_MAX)
    if not isinstance(answer, Response):
        why = str(answer).removeprefix(f"{replica.name}: ")
        report.fault("replica", f"a request of one token fails: {why}", "see the engine's log", replica.name)
    elif answer.status != 200:
        text = f"a request of one token to /v1/completions is answered {answer.status}"
        fix = "nothing, if its models are for something else, or clients bring the key"
        report.warn("replica", text, fix, replica.name)
    elif not _says_cached(answer.body):
        text = "its usage does not say how many tokens of a prompt were cached"
        report.warn("replica", text, "start vLLM with --enable-prompt-tokens-details", replica.name)


def _says_cached(body: bytes) -> bool:
    with contextlib.suppress(orjson.JSONDecodeError, KeyError, TypeError):
        return orjson.loads(body)["usage"]["prompt_tokens_details"]["cached_tokens"] is not None
    return False


def _compare(found: Sequence[Seen], report: Report) -> None:
    """Where replicas differ: a request may find one place only, or be refused at one of them."""
    serving: dict[str, list[str]] = {}
    lengths: dict[str, set[int]] = {}
    listed = [seen for seen in found if seen.models is not None]
    for seen in listed:
        for name, length in _models(seen):
            serving.setdefault(name, []).append(seen.replica.name)
            lengths.setdefault(name, set()).update([] if length is None else [length])
    if len(listed) > 1:
        for name, where in serving.items():
            if len(where) == 1:
                report.warn(
                    "model",
                    "one replica alone serves it: a request that fails there cannot be tried elsewhere",
                    "nothing, if that is meant",
                    name,
                )
    for name, several in lengths.items():
        if len(several) > 1:
            report.warn(
                "model",
                f"replicas take {min(several)} to {max(several)} tokens of it",
                "start all with the same --max-model-len",
                name,
            )


def _models(seen: Seen) -> Iterable[tuple[str, int | None]]:
    return seen.models.models if seen.models is not None else ()
