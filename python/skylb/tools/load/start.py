"""From settings to a running load."""

import asyncio
import signal
import socket
import ssl
from pathlib import Path

import msgspec

from skylb.addresses import ReplicaUrl
from skylb.errors import ConfigError, SkyLBError
from skylb.tools.load.drive import Load
from skylb.tools.load.generate import generate
from skylb.tools.load.messages import Renderer
from skylb.tools.load.progress import Progress
from skylb.tools.load.report import Report
from skylb.tools.load.send import Sender
from skylb.tools.load.settings import ANY_REGION, LoadSettings, Target
from skylb.tools.load.workload import Workload, read_workload, select_sessions
from skylb.types import Address, Replica
from skylb.upstream import Fetch, Pool, Response

MODELS_BYTES_MAX = 4 << 20


class LoadError(SkyLBError):
    """The load cannot begin; the message says why."""


class _Model(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Model]


async def run(settings: LoadSettings) -> Report:
    """Runs a load to its end and writes the JSON report where one is asked for.

    SIGINT and SIGTERM end it early: the report then covers what there is.

    Raises:
        ConfigError: the workload has regions without a target, or the report cannot be written.
        SkyLBError: the workload cannot be read, a target's name or models cannot be had.
    """
    if settings.json_file is not None:
        _check_writable(settings.json_file)
    load = await prepare(settings)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, load.interrupt)
    try:
        with Progress(settings.progress, load.requests) as progress:
            report = await load.run(lambda load: progress.show(load.elapsed_s, load.total()))
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
    if settings.json_file is not None:
        report.write(settings.json_file)
    return report


async def prepare(settings: LoadSettings) -> Load:
    """Reads or makes the workload, resolves the targets, asks for the model.

    Raises:
        ConfigError: the workload has regions without a target.
        SkyLBError: the workload cannot be read, a target's name or models cannot be had.
    """
    workload = read_or_generate(settings)
    regions = {turn.region for turn in workload.turns}
    targets = await _resolve(settings.target)
    lacking = sorted(regions - targets.keys()) if ANY_REGION not in targets else []
    if lacking:
        raise ConfigError([f"target: no target for region {region}" for region in lacking])
    tls = _tls(settings)
    key = settings.key_file.read_text().strip() if settings.key_file is not None else None
    model = settings.model or await _first_model(
        next(iter(targets.values()))[0], tls, key, settings.connect_s
    )
    renderer = Renderer(workload.turns, directives=settings.directives)
    sender = Sender(settings, renderer, targets, model=model, key=key, tls=tls)
    return Load(settings, workload, sender, model=model)


def read_or_generate(settings: LoadSettings) -> Workload:
    """The requests there are to send.

    Raises:
        WorkloadError: the file cannot be read, or has a broken line.
    """
    if settings.workload is None:
        workload = Workload(generate(settings.made))
    else:
        workload = read_workload(settings.workload, skip_bad=settings.skip_bad)
    workload.turns = select_sessions(workload.turns, settings.sessions)
    return workload


def _check_writable(path: Path) -> None:
    try:
        path.open("ab").close()
    except OSError as error:
        raise ConfigError([f"json_file: {path}: cannot be written: {error.strerror}"]) from error


def _tls(settings: LoadSettings) -> ssl.SSLContext | None:
    if all(target.url.scheme != "https" for target in settings.target):
        return None
    try:
        return ssl.create_default_context(cafile=settings.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError([f"ca_file: {settings.ca_file}: cannot be used: {error}"]) from error


async def _resolve(targets: tuple[Target, ...]) -> dict[str, list[Replica]]:
    """Targets by region, each name resolved once."""
    resolved: dict[str, list[Replica]] = {}
    for number, target in enumerate(targets):
        url = target.url
        replica = Replica(number, str(url), await _address(url), url.authority)
        resolved.setdefault(target.region, []).append(replica)
    return resolved


async def _address(url: ReplicaUrl) -> Address:
    if url.scheme == "unix":
        return Address(url.host, 0, unix=True)
    try:
        found = await asyncio.get_running_loop().getaddrinfo(url.host, url.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise LoadError(f"{url}: the name cannot be resolved: {error}") from error
    host = str(found[0][4][0])
    return Address(host, url.port, tls=url.scheme == "https", server_name=url.host)


async def _first_model(
    replica: Replica, tls: ssl.SSLContext | None, key: str | None, connect_s: float
) -> str:
    """The first model that a target lists."""
    pool = Pool(connect_timeout_s=connect_s, tls=tls)
    answer: asyncio.Future[Response | SkyLBError] = asyncio.get_running_loop().create_future()
    authorization = f"Authorization: Bearer {key}\r\n" if key else ""
    request = f"GET /v1/models HTTP/1.1\r\nHost: {replica.authority}\r\n{authorization}\r\n".encode("latin-1")
    fetch = Fetch(
        pool,
        replica,
        request,
        timeout_s=2 * connect_s,
        body_bytes_max=MODELS_BYTES_MAX,
        done=answer.set_result,
    )
    try:
        response = await answer
    finally:
        fetch.cancel()
        await pool.close()
    if isinstance(response, SkyLBError):
        raise LoadError(f"no model: name one with --model, or start the target: {response}")
    try:
        models = msgspec.json.decode(response.body, type=_Models).data if response.status == 200 else []
    except msgspec.DecodeError as error:
        raise LoadError(f"{replica.name}/v1/models: {error}") from error
    if not models:
        raise LoadError(
            f"{replica.name}/v1/models lists no model (status {response.status}): name one with --model"
        )
    return models[0].id
