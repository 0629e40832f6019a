"""What the page's buttons do."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Literal, TypeVar, get_args

import aiohttp
import msgspec

from skylb.config import Policy
from skylb.tools.demo.regions import Region, World

NEWS_KEPT = 40
POLICIES = ("predictive", "round_robin")
"""What the page's switch has."""

VERB_TIMEOUT_S = 5.0

WITHIN_S = 5.0
"""Streams that run in a region that is evacuated leave it after so long, where they may."""

T = TypeVar("T")


class Action(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A button that was pressed: ``do`` it to ``what`` is called ``name``, or ``set`` a switch to it."""

    do: Literal["kill", "start", "cut", "blackhole", "heal", "evacuate", "return", "set"]
    what: Literal["replica", "balancer", "link", "region", "policy", "share", "continuing"]
    name: str


class ActionError(Exception):
    """An action that cannot be done; the message says why."""


class Actions:
    """Carries actions out, one at a time.

    Args:
        world: what they are done to.
        elapsed_s: the demo's time.
    """

    def __init__(self, world: World, elapsed_s: Callable[[], float]) -> None:
        self._world = world
        self._elapsed_s = elapsed_s
        self._busy = asyncio.Lock()
        self._news: deque[tuple[float, str]] = deque(maxlen=NEWS_KEPT)
        self._verbs: dict[tuple[str, str], Callable[[str], Awaitable[str]]] = {
            ("kill", "replica"): self._kill_replica,
            ("start", "replica"): self._start_replica,
            ("kill", "balancer"): self._kill_balancer,
            ("start", "balancer"): self._start_balancer,
            ("cut", "link"): lambda name: self._break(name, "cut"),
            ("blackhole", "link"): lambda name: self._break(name, "blackhole"),
            ("heal", "link"): lambda name: self._break(name, "none"),
            ("evacuate", "region"): lambda name: self._evacuate(name, evacuating=True),
            ("return", "region"): lambda name: self._evacuate(name, evacuating=False),
            ("set", "policy"): self._set_policy,
            ("set", "share"): self._set_share,
            ("set", "continuing"): self._set_continuing,
        }

    @property
    def news(self) -> list[tuple[float, str]]:
        """What was done, newest first."""
        return list(self._news)

    def say(self, text: str) -> None:
        """Adds to the news."""
        self._news.appendleft((round(self._elapsed_s(), 1), text))

    async def perform(self, action: Action) -> str:
        """Does it; a sentence that says what was done.

        Raises:
            ActionError: there is nothing of that name, or it is in no state for that.
            SkyLBError: a process did not obey.
        """
        verb = self._verbs.get((action.do, action.what))
        if verb is None:
            raise ActionError(f"{action.do} {action.what}: no such action")
        async with self._busy:
            try:
                done = await verb(action.name)
            except KeyError:
                raise ActionError(f"{action.what} {action.name}: there is none") from None
            self.say(done)
        return done

    async def _kill_replica(self, name: str) -> str:
        replica = self._world.replica(name)
        child, replica.child = replica.child, None
        if child is None:
            raise ActionError(f"replica {name} is dead already")
        await child.kill()
        return f"replica {name} killed"

    async def _start_replica(self, name: str) -> str:
        replica = self._world.replica(name)
        if replica.child is not None:
            raise ActionError(f"replica {name} runs")
        await self._world.start_replica(replica)
        return f"replica {name} started, its cache empty"

    async def _kill_balancer(self, name: str) -> str:
        region = self._world.regions[name]
        child, region.balancer = region.balancer, None
        if child is None:
            raise ActionError(f"balancer {name} is dead already")
        await child.kill()
        return f"balancer {name} killed"

    async def _start_balancer(self, name: str) -> str:
        region = self._world.regions[name]
        if region.balancer is not None:
            raise ActionError(f"balancer {name} runs")
        await self._world.start_balancer(region)
        if not self._world.share:
            await share(region, self._world.regions, on=False)
        return f"balancer {name} started"

    async def _break(self, name: str, fault: str) -> str:
        if name not in {link.name for link in self._world.links}:
            raise KeyError(name)
        await self._world.weather(link=name, fault=fault)
        return f"link {name} " + {"none": "healed", "cut": "cut", "blackhole": "swallows everything"}[fault]

    async def _evacuate(self, name: str, *, evacuating: bool) -> str:
        region = self._world.regions[name]
        if region.balancer is None:
            raise ActionError(f"balancer {name} is dead")
        if len(self._world.regions) == 1:
            raise ActionError("there is no other region")
        verb = f"evacuate?within={WITHIN_S:g}" if evacuating else "undrain"
        await tell(f"{region.admin}/regions/{name}/{verb}")
        region.evacuating = evacuating
        return f"region {name} {'is being evacuated' if evacuating else 'takes work again'}"

    async def _set_policy(self, name: str) -> str:
        known = get_args(Policy)
        if name not in known:
            raise ActionError(f"policy {name}: expected one of {', '.join(known)}")
        await self._turn(set_policy, self._world.policy, name)
        self._world.policy = name
        return f"all balancers: policy {name.replace('_', ' ')}"

    async def _set_share(self, name: str) -> str:
        if name not in {"on", "off"}:
            raise ActionError(f"share {name}: expected on or off")
        if len(self._world.regions) == 1:
            raise ActionError("there is no other region")

        async def turn(region: Region, on: bool) -> None:
            await share(region, self._world.regions, on=on)

        await self._turn(turn, self._world.share, name == "on")
        self._world.share = name == "on"
        return "regions share their work" if self._world.share else "each region is alone"

    async def _set_continuing(self, name: str) -> str:
        if name not in {"on", "off"}:
            raise ActionError(f"continuing {name}: expected on or off")
        await self._turn(set_continuing, self._world.continuing, name == "on")
        self._world.continuing = name == "on"
        return f"streams {'go on' if self._world.continuing else 'end'} where a replica dies"

    async def _turn(self, turn: Callable[[Region, T], Awaitable[None]], old: T, new: T) -> None:
        """Turns a switch at every balancer that runs, or at none.

        A balancer that does not obey may do so later: it is turned back as well.

        Raises:
            ActionError: a balancer does not obey; the others are as they were, as far as they obey.
        """
        turned: list[Region] = []
        for region in self._world.regions.values():
            if region.balancer is None:
                continue
            turned.append(region)
            try:
                await turn(region, new)
            except ActionError as error:
                stuck = [other.name for other in turned if not await _obeys(turn(other, old))]
                stuck = [name for name in stuck if name != region.name]
                others = (
                    f"; {' and '.join(stuck)} cannot be set back" if stuck else ", the others are as before"
                )
                text = f"balancer {region.name}: {error}{others}"
                self.say(f"switch not turned: {text}")
                raise ActionError(text) from error


async def set_policy(region: Region, name: str) -> None:
    """Sets a balancer's policy.

    Raises:
        ActionError: it does not obey.
    """
    await tell(f"{region.admin}/policy", "PUT", {"policy": name})


async def set_continuing(region: Region, on: bool) -> None:
    """Lets the streams of a balancer go on at another replica, or not.

    Raises:
        ActionError: it does not obey.
    """
    await tell(f"{region.admin}/continuing", "PUT", {"continuing": "on" if on else "off"})


async def share(region: Region, regions: Iterable[str], *, on: bool) -> None:
    """Lets a region's balancer share work with the other regions, or not.

    Raises:
        ActionError: it does not obey.
    """
    for other in regions:
        if other != region.name:
            await tell(f"{region.admin}/peers/{other}/{'rejoin' if on else 'isolate'}")


async def _obeys(asked: Awaitable[None]) -> bool:
    try:
        await asked
    except ActionError:
        return False
    return True


async def tell(url: str, method: str = "POST", body: object = None) -> None:
    """Asks a balancer's admin listener.

    Raises:
        ActionError: it does not obey.
    """
    timeout = aiohttp.ClientTimeout(total=VERB_TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout, raise_for_status=True) as session:
        try:
            async with session.request(method, url, json=body):
                pass
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ActionError(f"it does not obey ({fault(error)})") from error


def fault(error: aiohttp.ClientError | TimeoutError) -> str:
    """Why there is no answer, for people."""
    if isinstance(error, aiohttp.ClientResponseError):
        return f"it answers {error.status}"
    return f"no answer in {VERB_TIMEOUT_S:.0f} s" if isinstance(error, TimeoutError) else str(error)
