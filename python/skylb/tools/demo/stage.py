"""The demo from its first process to its last."""

import asyncio
import signal
import tempfile
from pathlib import Path

import aiohttp
import msgspec

from skylb.admin.live import Feed
from skylb.admin.state import State
from skylb.listeners import bind
from skylb.tasks import TaskGroup
from skylb.tools.demo.actions import Actions
from skylb.tools.demo.children import Children, DemoError
from skylb.tools.demo.day import awake
from skylb.tools.demo.picture import Picture
from skylb.tools.demo.regions import Region, World
from skylb.tools.demo.settings import DemoSettings
from skylb.tools.demo.state import History, Look, Users
from skylb.tools.demo.view import View, summary
from skylb.tools.demo.web import Web
from skylb.tools.load import LoadSettings, Report, prepare
from skylb.tools.load.drive import Load
from skylb.tools.load.settings import SyntheticSettings, parse_target

LOOK_INTERVAL_S = 0.5
LOOKS_PER_KEPT_FRAME = 2
LOOK_TIMEOUT_S = 1.0
SILENT_LOOKS_MAX = 20
"""Looks at which no balancer answers, though one should, before the demo gives up."""

USERS_PER_TALKER = 8
"""Users who take a seat one after another: conversations enough for hours."""

_decoder = msgspec.json.Decoder(State)


async def run(settings: DemoSettings) -> None:
    """Runs the demo until its time is over or SIGINT or SIGTERM ends it; prints a summary.

    Raises:
        DemoError: a process ended by itself, no balancer answers, or no request succeeded.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        with tempfile.TemporaryDirectory(prefix="skylb-demo-") as directory:
            async with Children() as children:
                world = World(settings, children, Path(directory))
                await _Demo(settings, children, world, stop).run()
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


class _Demo:
    def __init__(self, settings: DemoSettings, children: Children, world: World, stop: asyncio.Event) -> None:
        self._settings = settings
        self._children = children
        self._world = world
        self._stop = stop
        self._history = History()
        self._tasks = TaskGroup()
        self._feed = Feed()
        self._view = View(
            f"SkyLB: {len(settings.regions)} regions with {settings.replicas} mock replicas and up to"
            f" {settings.users} users",
            settings.sequences,
        )

    async def run(self) -> None:
        sockets = bind(self._settings.page)
        await self._world.start()
        load = await prepare(self._load_settings())
        actions = Actions(self._world, lambda: load.elapsed_s)
        picture = Picture(self._settings, self._world, load)
        web = Web(self._feed, actions)
        try:
            self._view.page = await web.start(sockets)
            self._view.say(f"live page: {self._view.page}")
            report = await self._watch(load, actions, picture)
        finally:
            await self._tasks.stop()
            await web.close()
        self._view.say(summary(self._history, report, load.total().codes, picture.comparison))
        if not report.total.ok and not self._stop.is_set():
            raise DemoError("no request was answered")

    def _load_settings(self) -> LoadSettings:
        settings = self._settings
        targets = (parse_target(f"{name}={region.clients}") for name, region in self._world.regions.items())
        return LoadSettings(
            target=tuple(targets),
            concurrency=settings.users,
            ramp_s=1.0,
            time_scale=settings.time_scale,
            duration_s=settings.duration_s,
            drain_s=0.0,
            synthetic=SyntheticSettings(
                regions=settings.regions,
                users=settings.users * USERS_PER_TALKER,
                sessions=8,
                turns=7.0,
                systems=2 * settings.replicas,
                system_tokens=512,
                user_tokens=192,
                answer_tokens=48,
                think_s=6.0,
            ),
        )

    async def _watch(self, load: Load, actions: Actions, picture: Picture) -> Report:
        """Shows the load until it ends, the demo is stopped, or a process fails."""
        with self._view:
            running = self._tasks.start(load.run(), name="demo load")
            looking = self._tasks.start(self._look(load, actions, picture), name="demo view")
            stopped = self._tasks.start(self._stop.wait(), name="demo stop")
            await asyncio.wait(
                {running, looking, stopped, self._children.ended}, return_when=asyncio.FIRST_COMPLETED
            )
            if self._children.ended.done():
                raise self._children.ended.result().failure()
            if looking.done():
                looking.result()
            load.interrupt()
            report: Report = await running
            return report

    # ------------------------------------------------------------------------------- looking

    async def _look(self, load: Load, actions: Actions, picture: Picture) -> None:
        timeout = aiohttp.ClientTimeout(total=LOOK_TIMEOUT_S)
        looks = silent = 0
        async with aiohttp.ClientSession(timeout=timeout, raise_for_status=True) as session:
            while True:
                self._turn_the_earth(load, picture, actions)
                states = await self._states(session)
                alive = any(region.balancer is not None for region in self._world.regions.values())
                silent = silent + 1 if alive and not states else 0
                if silent > SILENT_LOOKS_MAX:
                    raise DemoError("no balancer answers")
                users = {str(name): self._users(load, name) for name in self._world.regions}
                self._history.add(Look(load.elapsed_s, states, users))
                looks += 1
                frame = picture.frame(self._history, actions.news)
                for text in picture.changes(frame):
                    actions.say(text)
                self._view.show(frame, self._history, load)
                shown = msgspec.to_builtins(frame)
                self._feed.publish(shown)
                if looks % LOOKS_PER_KEPT_FRAME == 0:
                    self._feed.keep(shown)
                await asyncio.sleep(LOOK_INTERVAL_S)

    def _turn_the_earth(self, load: Load, picture: Picture, actions: Actions) -> None:
        """Wakes users and puts them to bed, and sends them where a balancer is, as DNS would."""
        for name in self._world.regions:
            load.seat(name, awake(self._settings, name, load.elapsed_s))
            nearest = self._world.nearest(name)
            if nearest is not None and nearest != picture.sent_to[name]:
                picture.sent_to[name] = nearest
                load.retarget(name, self._world.entrance(name, nearest))
                actions.say(f"DNS: users of {name} go to {nearest}")

    async def _states(self, session: aiohttp.ClientSession) -> dict[str, State]:
        regions = [region for region in self._world.regions.values() if region.balancer is not None]
        found = await asyncio.gather(*(self._state(session, region) for region in regions))
        return {region.name: state for region, state in zip(regions, found, strict=True) if state is not None}

    async def _state(self, session: aiohttp.ClientSession, region: Region) -> State | None:
        """What a balancer says; ``None`` if it says nothing, for instance because it is being killed."""
        try:
            async with session.get(f"{region.admin}/state") as answer:
                return _decoder.decode(await answer.read())
        except (aiohttp.ClientError, TimeoutError):
            return None
        except msgspec.DecodeError as error:
            raise DemoError(f"the balancer's {region.admin}/state cannot be read: {error}") from error

    def _users(self, load: Load, region: str) -> Users:
        tally = load.tally(region)
        return Users(tally.ttft.buckets, tally.ok)
