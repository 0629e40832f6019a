"""The demo from its first process to its last."""

import asyncio
import re
import signal

import aiohttp
import msgspec

from skylb.demo.children import Children, DemoError
from skylb.demo.settings import DemoSettings
from skylb.demo.state import History, Look, State
from skylb.demo.view import View, summary
from skylb.load import LoadSettings, Report, prepare
from skylb.load.drive import Load
from skylb.load.settings import SyntheticSettings, parse_target
from skylb.tasks import TaskGroup

LOOK_INTERVAL_S = 0.5
LOOK_TIMEOUT_S = 5.0
LAST_WORDS_S = 1.0
USERS_PER_TALKER = 8
"""Users who take a seat one after another: conversations enough for hours."""

_URL = re.compile(r"http://[^\s]+")
_ADDRESS = re.compile(r"^\s*(clients|admin)\s+(http://[^\s]+)")


async def run(settings: DemoSettings) -> None:
    """Runs the demo until its time is over or SIGINT or SIGTERM ends it; prints a summary.

    Raises:
        DemoError: a process ended by itself, the balancer does not answer, or no request succeeded.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        async with Children() as children:
            await _Demo(settings, children, stop).run()
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


class _Demo:
    def __init__(self, settings: DemoSettings, children: Children, stop: asyncio.Event) -> None:
        self._settings = settings
        self._children = children
        self._stop = stop
        self._history = History()
        self._tasks = TaskGroup()
        self._view = View(
            f"SkyLB, policy {settings.policy}: {settings.replicas} mock replicas, {settings.users} users"
            f" ({1 / settings.time_scale:g} times real speed)",
            settings.sequences,
        )

    async def run(self) -> None:
        replicas = await self._start_replicas()
        clients, admin = await self._start_balancer(replicas)
        load = await prepare(self._load_settings(clients))
        try:
            report = await self._watch(load, admin)
        finally:
            await self._tasks.stop()
        self._view.say(summary(self._history, report))
        if not report.total.ok and not self._stop.is_set():
            raise DemoError("no request was answered")

    async def _start_replicas(self) -> list[str]:
        settings = self._settings
        urls: list[str] = []

        def ready(line: str) -> bool:
            urls.extend(_URL.findall(line))
            return line.strip() == "ready"

        arguments = ["mock", "--listen", "127.0.0.1:0", "--count", str(settings.replicas)]
        arguments += ["--profile", "l4-8b", "--time-scale", str(settings.time_scale)]
        arguments += ["--max-num-seqs", str(settings.sequences)]
        await self._children.start("skylb mock", arguments, ready)
        return urls

    async def _start_balancer(self, replicas: list[str]) -> tuple[str, str]:
        """The balancer's URLs: for clients, and of its admin listener."""
        urls: dict[str, str] = {}

        def ready(line: str) -> bool:
            if match := _ADDRESS.match(line):
                urls[match[1]] = match[2]
            return len(urls) == 2

        arguments = ["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--no-access-log"]
        arguments += ["--policy", self._settings.policy, "--log-level", "warning"]
        for url in replicas:
            arguments += ["--replica", url]
        await self._children.start("skylb serve", arguments, ready)
        return urls["clients"], urls["admin"]

    def _load_settings(self, clients: str) -> LoadSettings:
        settings = self._settings
        return LoadSettings(
            target=(parse_target(clients),),
            concurrency=settings.users,
            ramp_s=3.0,
            time_scale=settings.time_scale,
            duration_s=settings.duration_s,
            drain_s=0.0,
            synthetic=SyntheticSettings(
                users=settings.users * USERS_PER_TALKER,
                sessions=20,
                turns=6.0,
                systems=2 * settings.replicas,
                system_tokens=512,
                user_tokens=64,
                answer_tokens=96,
                think_s=5.0,
            ),
        )

    async def _watch(self, load: Load, admin: str) -> Report:
        """Shows the load until it ends, the demo is stopped, or a process fails."""
        with self._view:
            running = self._tasks.start(load.run(), name="demo load")
            looking = self._tasks.start(self._look(load, admin), name="demo view")
            stopped = self._tasks.start(self._stop.wait(), name="demo stop")
            await asyncio.wait(
                {running, looking, stopped, self._children.ended}, return_when=asyncio.FIRST_COMPLETED
            )
            if looking.done():  # for want of an answer: perhaps because the balancer has ended
                await asyncio.wait({self._children.ended}, timeout=LAST_WORDS_S)
            if self._children.ended.done():
                raise self._children.ended.result().failure()
            if looking.done():
                looking.result()
            load.interrupt()
            report: Report = await running
            return report

    async def _look(self, load: Load, admin: str) -> None:
        timeout = aiohttp.ClientTimeout(total=LOOK_TIMEOUT_S)
        decoder = msgspec.json.Decoder(State)
        async with aiohttp.ClientSession(timeout=timeout, raise_for_status=True) as session:
            while True:
                try:
                    async with session.get(f"{admin}/state") as answer:
                        state = decoder.decode(await answer.read())
                except (aiohttp.ClientError, TimeoutError, msgspec.DecodeError) as error:
                    raise DemoError(f"the balancer's {admin}/state cannot be read: {error!r}") from error
                tally = load.total()
                self._history.add(Look(load.elapsed_s, state, tally.ttft.buckets, tally.ok))
                self._view.show(self._history, tally)
                await asyncio.sleep(LOOK_INTERVAL_S)
