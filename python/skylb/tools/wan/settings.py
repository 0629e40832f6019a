"""The settings of ``skylb wan``."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import msgspec
from pydantic import BeforeValidator, Field, PlainSerializer

from skylb.addresses import ListenAddress, parse_listen
from skylb.config import (
    FILE,
    LISTEN,
    Bytes,
    Count,
    Expected,
    File,
    Group,
    Listen,
    Otherwise,
    Placeholder,
    Seconds,
)
from skylb.tools.wan.shape import PROFILES, ProfileName, Shape


@dataclass(frozen=True, slots=True)
class Port:
    """Connections that come in at ``listen`` go from ``origin`` to ``target``, at the end ``far``."""

    origin: str
    far: str
    listen: ListenAddress
    target: ListenAddress

    def __str__(self) -> str:
        """The form it is configured in."""
        return f"{self.origin}-{self.far}={self.listen},{self.target}"


def parse_port(text: str) -> Port:
    """Reads ``A-B=LISTEN,TARGET``.

    Raises:
        ValueError: says what is wrong with ``text``.
    """
    name, _, addresses = text.partition("=")
    origin, dash, far = name.partition("-")
    listen, comma, target = addresses.partition(",")
    if not (dash and comma) or not all(part.isascii() and part.isalnum() for part in (origin, far)):
        raise ValueError("it is not A-B=LISTEN,TARGET, with A and B of letters and digits")
    if origin == far:
        raise ValueError("a link has two ends")
    return Port(origin, far, parse_listen(listen), parse_listen(target))


def _port(value: object) -> object:
    return parse_port(value) if isinstance(value, str) else value


LinkPort = Annotated[Port, BeforeValidator(_port), PlainSerializer(str)]


THE_PROFILE = Otherwise("the profile's")


class WanSettings(Group):
    """Links between regions, in one process."""

    link: Annotated[
        tuple[LinkPort, ...],
        Expected("A-B=LISTEN,TARGET: connections from A to B; ports of A-B and B-A share one link"),
        Placeholder("A-B=LISTEN,TARGET"),
        Field(
            max_length=256,
            description="A port of the link between the ends A and B. Connections to LISTEN come from A and "
            "lead to TARGET at B.",
        ),
    ] = ()
    profile: Annotated[
        ProfileName,
        Field(description="Round trip, jitter and bandwidth of each link, by the names of its ends."),
    ] = "plain"
    rtt_s: Annotated[
        Seconds | None, THE_PROFILE, Field(ge=0, le=60, description="Round trip time of each link.")
    ] = None
    jitter_s: Annotated[
        Seconds | None,
        THE_PROFILE,
        Field(ge=0, le=60, description="Maximum jitter each way, on top of the round trip time."),
    ] = None
    bytes_per_s: Annotated[
        Bytes | None,
        THE_PROFILE,
        Field(ge=0, description="Bandwidth of a link each way, in bytes per second. 0 sets no limit."),
    ] = None
    window_bytes_max: Annotated[
        Bytes,
        Field(
            ge=14_600,
            description="Maximum number of bytes that one connection has under way in each direction.",
        ),
    ] = 4 << 20
    slow_start: Annotated[
        bool,
        Field(
            description="Let a connection carry ten segments in its first round trip, and twice as much in "
            "each further one, as TCP does."
        ),
    ] = True
    control: Annotated[
        Listen | None,
        LISTEN,
        Field(description="Address that takes commands, one JSON object per line, and answers each."),
    ] = None
    script: Annotated[
        File | None, FILE, Field(description="File of commands, one per line. Each runs at its time, at_s.")
    ] = None
    tell: Annotated[
        tuple[str, ...],
        Expected("a JSON object"),
        Placeholder("JSON"),
        Field(max_length=64, description="Send this command to the process at --control. Start no relay."),
    ] = ()
    seed: Annotated[Count, Field(ge=0, description="Seed of the jitter.")] = 1

    def conflicts(self) -> Iterator[tuple[set[str], str]]:
        """Values that are valid alone and wrong together: the options' names, and a sentence."""
        if not self.link and not self.tell:
            yield {"link"}, "link: expected at least one, or tell"
        if self.tell and self.control is None:
            yield {"tell", "control"}, "tell: expected with control, the address of a running skylb wan"
        for index, port in enumerate(self.link):
            if any(port.listen.collides(other.listen) for other in self.link[:index]):
                yield {"link"}, f"link: {port.listen} is given twice: expected distinct addresses"

    def shape(self, ends: frozenset[str]) -> Shape:
        """A link's figures."""
        base = PROFILES[self.profile].get(ends, Shape())
        names = ("rtt_s", "jitter_s", "bytes_per_s")
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        return msgspec.structs.replace(
            base, window_bytes_max=self.window_bytes_max, slow_start=self.slow_start, **given
        )
