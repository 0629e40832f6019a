"""From looks at the regions to the page's frames."""

from skylb.tools.demo.actions import POLICIES
from skylb.tools.demo.compare import Comparison, Setting
from skylb.tools.demo.day import PLACES, sun_longitude
from skylb.tools.demo.failures import sentence
from skylb.tools.demo.frame import FlowFrame, Frame, LinkFrame, RegionFrame, ReplicaFrame, SwitchFrame
from skylb.tools.demo.regions import Region, ReplicaProcess, World
from skylb.tools.demo.settings import DemoSettings
from skylb.tools.demo.state import History
from skylb.tools.load.drive import Load
from skylb.tools.load.stats import Histogram

DEAD = "killed"


def about(settings: DemoSettings) -> tuple[str, ...]:
    """What the page says of itself."""
    replicas = f"{settings.replicas} mock vLLM replica{'s' * (settings.replicas > 1)}"
    if len(settings.regions) == 1:
        return (
            f"A SkyLB balancer with {replicas}, on this machine.",
            "A request goes to the replica that answers it first: cached prompts count, and so do queues.",
        )
    return (
        (
            f"A SkyLB balancer and {replicas} in each region, all on this machine; links are as slow as"
            " oceans. Around noon a region has more requests than places."
        ),
        (
            "A request goes to the replica that answers first: cached prompts count, and so do queues."
            " From a full region it goes to one with room (dots along a link), or it waits."
        ),
        (
            "Turn a switch and watch the TTFT; between two noons there is little to share. Kill, cut or"
            " evacuate what you like, then mend it."
        ),
    )


def recent_ttft(history: History, load: Load, region: str) -> Histogram:
    """TTFT of a region's users, recently."""
    return load.tally(region).ttft.since(history.first.users[region].buckets)


class Picture:
    """Draws frames.

    Args:
        settings: of the demo.
        world: its processes.
        load: its users.
    """

    def __init__(self, settings: DemoSettings, world: World, load: Load) -> None:
        self._settings = settings
        self._world = world
        self._load = load
        self._servers: dict[str, str] = {}
        self.comparison = Comparison(self.setting)
        self.sent_to: dict[str, str] = {name: name for name in world.regions}
        """The balancer that each region's users are sent to."""

    @property
    def setting(self) -> Setting:
        """How the balancers are set."""
        world = self._world
        return Setting(world.policy, world.share, world.continuing)

    def frame(self, history: History, news: list[tuple[float, str]]) -> Frame:
        """The frame of the last look."""
        settings, total = self._settings, self._load.total().ttft
        recent, comparison = history.ttft(total), self.comparison
        comparison.look(history.last.elapsed_s, self.setting, total)
        return Frame(
            t_s=round(history.last.elapsed_s, 2),
            title=f"{1 / settings.time_scale:.3g} times real speed, a day is {settings.day_s:g} s",
            about=about(self._settings),
            sun_longitude=sun_longitude(self._settings, history.last.elapsed_s),
            actions=True,
            regions=[self._region(region, history) for region in self._world.regions.values()],
            links=[
                LinkFrame(
                    name=link.name,
                    ends=(link.name.split("-")[0], link.name.split("-")[1]),
                    rtt_s=link.shape.rtt_s,
                    fault=link.fault,
                )
                for link in self._world.links
            ],
            flows=self._flows(history),
            news=news,
            ttft_p50_s=recent.quantile(0.5),
            ttft_p90_s=recent.quantile(0.9),
            switches=self._switches(),
            marks=list(comparison.marks),
            before=comparison.before,
            since=comparison.since,
            given=comparison.given(),
        )

    def _switches(self) -> list[SwitchFrame]:
        policies = dict.fromkeys((*POLICIES, self._settings.policy))
        choices = [(name, name.replace("_", " ")) for name in policies]
        found = [SwitchFrame(what="policy", label="policy", value=self._world.policy, choices=choices)]
        onoff = [("on", "on"), ("off", "off")]
        value = "on" if self._world.continuing else "off"
        found.append(SwitchFrame(what="continuing", label="streams go on", value=value, choices=onoff))
        if len(self._world.regions) > 1:
            value = "on" if self._world.share else "off"
            found.append(SwitchFrame(what="share", label="regions share", value=value, choices=onoff))
        return found

    def _region(self, region: Region, history: History) -> RegionFrame:
        ttft = recent_ttft(history, self._load, region.name)
        tally = self._load.tally(region.name)
        state = history.last.states.get(region.name)
        return RegionFrame(
            name=region.name,
            longitude=PLACES[region.name][0],
            latitude=PLACES[region.name][1],
            balancer=DEAD if region.balancer is None else "up" if state is not None else "silent",
            evacuating=region.evacuating,
            held=state.held if state is not None else 0,
            users=self._load.seats(region.name),
            users_max=self._settings.users,
            sent_to=self.sent_to[region.name],
            per_s=round(history.answers_per_s(region.name), 2),
            ttft_p50_s=ttft.quantile(0.5),
            ttft_p90_s=ttft.quantile(0.9),
            answered=tally.ok,
            failed=tally.failed,
            why=sentence(tally.codes),
            replicas=[self._replica(replica, history) for replica in region.replicas],
        )

    def _replica(self, replica: ReplicaProcess, history: History) -> ReplicaFrame:
        name = replica.name
        if replica.child is None:
            return ReplicaFrame(name=name, health=DEAD, capacity=self._settings.sequences)
        states = {
            region: found
            for region, state in history.last.states.items()
            for found in state.replicas
            if found.name == replica.url
        }
        if not states:
            return ReplicaFrame(name=name, health="unserved", capacity=self._settings.sequences)
        server = max(states, key=lambda region: (states[region].health == "up", states[region].in_flight))
        seen = states[server]
        return ReplicaFrame(
            name=name,
            health=seen.health,
            in_flight=sum(state.in_flight for state in states.values()),
            pending=seen.pending,
            capacity=self._settings.sequences,
            cached=history.hit_rate(replica.url),
            draining=seen.draining,
            countdown=seen.countdown,
            served_by=server,
        )

    def changes(self, frame: Frame) -> list[str]:
        """What happened since the last frame that no button says: balancers that adopt or hand back."""
        said = []
        for region in frame.regions:
            for replica in region.replicas:
                if not replica.served_by:
                    continue
                before = self._servers.get(replica.name, region.name)
                self._servers[replica.name] = replica.served_by
                if replica.served_by != before:
                    verb = "serves again" if replica.served_by == region.name else "adopts"
                    said.append(f"{replica.served_by} {verb} {replica.name}")
        return said

    def _flows(self, history: History) -> list[FlowFrame]:
        return [
            FlowFrame(
                origin=origin,
                target=peer.name,
                per_s=round(history.forwards_per_s(origin, peer.name), 2),
                in_flight=peer.in_flight,
                state=peer.state,
                room=peer.room,
            )
            for origin, state in history.last.states.items()
            for peer in state.peers
        ]
