"""What `skylb doctor` sees of the configuration and of this machine: files, descriptors, addresses."""

import aiohttp

from skylb import parts
from skylb.config import Settings
from skylb.descriptors import Allotment, open_len, raise_limit
from skylb.errors import ConfigError, ListenError
from skylb.keyfiles import exposed
from skylb.listeners import check_address
from skylb.options import secrets
from skylb.startreport import open_warning, url_of
from skylb.tools.doctor.findings import Report

ASK_S = 2.0
"""For asking whether a balancer has an address already."""


def look_at_files(settings: Settings, report: Report) -> None:
    """The files that the settings name: what is in them, and who may read them."""
    try:
        parts.check_files(settings)
    except ConfigError as error:
        for fault in error.faults:
            report.fault("configuration", fault, "correct the file, or the setting that names it")
    else:
        report.ok("configuration", "values are valid, and files readable")
    for option, path in secrets(settings).items():
        if exposed(path):
            report.warn("file", "everybody on this machine may read or change it", f"chmod o= {path}", option)


def look_at_guards(settings: Settings, report: Report) -> None:
    """Who may use the replicas and the admin listener."""
    if open_warning(settings) is not None:
        report.warn(
            "keys",
            "every client that reaches the listener can use --replica-key-file: clients are not checked",
            "--keys-file, --tls-client-ca, or a gateway that checks keys; --probe-key-file gives a key to "
            "probes only",
        )
    if settings.admin_token_file is None and not settings.admin.is_loopback and not settings.admin.unix:
        report.warn(
            "admin",
            f"{settings.admin} is not loopback, so /state and operators' commands are refused there",
            "--admin-token-file, or an address of loopback",
        )


def look_at_descriptors(settings: Settings, report: Report) -> None:
    """How many connections the limit of open files allows."""
    before, limit = raise_limit()
    most = [settings.connections_max]
    if settings.mesh.peer_listen is not None:
        most.append(settings.mesh.peer_connections_max)
    allotment = Allotment.of(limit, open_len(), most)
    need = 2 * sum(most) + allotment.kept
    fix = f"raise the limit to {need} (ulimit -n, LimitNOFILE=), or lower --connections-max"
    allowed = ", ".join(map(str, allotment.connections))
    if min(allotment.connections) <= 0:
        report.fault("descriptors", f"{limit} are allowed, which is too few for any client", fix)
    elif allotment.connections[0] < most[0]:
        wanted = ", ".join(map(str, most))
        report.warn(
            "descriptors", f"{limit} are allowed: connections at most {allowed}, not {wanted} as set", fix
        )
    else:
        report.ok("descriptors", f"{limit} allowed ({before} at the start), {need} needed")


async def look_at_addresses(settings: Settings, report: Report) -> None:
    """Whether the addresses to listen on can be had."""
    running = await _is_running(settings)
    wanted = [("--listen", address) for address in settings.listen]
    wanted += [
        (flag, address)
        for flag, address in (
            ("--admin", settings.admin),
            ("--peer-listen", settings.mesh.peer_listen),
            ("--sync-listen", settings.mesh.sync_listen),
        )
        if address is not None
    ]
    free = []
    for flag, address in wanted:
        try:
            check_address(address)
        except ListenError as error:
            text = str(error)
            if error.in_use and running:
                report.warn(
                    "address", f"{text}, by a balancer that runs", "nothing, if it is to be replaced", flag
                )
            else:
                report.fault("address", text, "stop what has it, or take another address", flag)
        else:
            free.append(f"{flag} {address}")
    if free:
        report.ok("address", f"free: {', '.join(free)}")


async def _is_running(settings: Settings) -> bool:
    """Whether a balancer answers at the admin address."""
    if settings.admin.unix or settings.admin.port == 0:
        return False
    timeout = aiohttp.ClientTimeout(ASK_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as client,
            client.get(f"{url_of('http', settings.admin)}/health") as answer,
        ):
            return answer.headers.get("Server") == "SkyLB"
    except (aiohttp.ClientError, OSError, TimeoutError):
        return False
