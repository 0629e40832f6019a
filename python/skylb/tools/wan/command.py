"""Commands: one JSON object a line, over the control socket, or from a script with a time each."""

from pathlib import Path
from typing import Annotated

import msgspec

from skylb.tools.wan.link import Link, LinkState
from skylb.tools.wan.shape import Fault, Seconds, Shape

LINE_BYTES_MAX = 64 << 10
SCRIPT_BYTES_MAX = 1 << 20
ALL = "*"


class CommandError(ValueError):
    """A command cannot be carried out; the message says why."""


class Command(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What changes; without any change it asks for the state only.

    Attributes:
        link: its name, ends in either order; ``*`` is every link.
        fault: what is wrong from now on; ``none`` heals.
        origin: ``from`` in JSON: the end whose bytes a ``drop`` or ``stall`` affects.
        at_s: in scripts: seconds after the start.
    """

    link: str = ALL
    fault: Fault | None = None
    origin: str = msgspec.field(name="from", default="")
    rtt_s: Seconds | None = None
    jitter_s: Seconds | None = None
    bytes_per_s: Annotated[int, msgspec.Meta(ge=0)] | None = None
    slow_start: bool | None = None
    at_s: Annotated[float, msgspec.Meta(ge=0, le=1e6)] = 0.0

    def shape(self, before: Shape) -> Shape:
        """A link's figures after this command."""
        names = ("rtt_s", "jitter_s", "bytes_per_s", "slow_start")
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        return msgspec.structs.replace(before, **given)


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a command is answered: the links it named, or what is wrong with it."""

    links: list[LinkState] = []
    error: str | None = None


_decoder = msgspec.json.Decoder(Command)


def parse(line: bytes) -> Command:
    """Reads a command.

    Raises:
        CommandError: it is none.
    """
    try:
        return _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CommandError(str(error)) from error


def read_script(path: Path) -> list[Command]:
    """Commands of a file by their time; empty lines and lines that begin with ``#`` are left out.

    Raises:
        CommandError: it cannot be read, or a line is no command.
    """
    try:
        with path.open("rb") as file:
            text = file.read(SCRIPT_BYTES_MAX + 1)
    except OSError as error:
        raise CommandError(f"{path}: cannot be read: {error.strerror}") from error
    if len(text) > SCRIPT_BYTES_MAX:
        raise CommandError(f"{path}: more than {SCRIPT_BYTES_MAX} bytes")
    commands = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.startswith(b"#"):
            try:
                commands.append(parse(line))
            except CommandError as error:
                raise CommandError(f"{path}, line {number}: {error}") from error
    return sorted(commands, key=lambda command: command.at_s)


def find(links: dict[frozenset[str], Link], name: str) -> list[Link]:
    """The links that a name means.

    Raises:
        CommandError: there is none.
    """
    if name == ALL:
        return list(links.values())
    link = links.get(frozenset(name.split("-")))
    if link is None:
        known = ", ".join(link.name for link in links.values())
        raise CommandError(f"link {name!r}: expected one of {known}, or {ALL}")
    return [link]


def check(links: dict[frozenset[str], Link], command: Command) -> list[Link]:
    """The links that a command changes.

    Raises:
        CommandError: it does not fit them.
    """
    found = find(links, command.link)
    if command.origin and command.fault not in {"drop", "stall"}:
        raise CommandError(f"from is {command.origin!r}: expected with fault drop or stall only")
    if command.fault == "drop" and not command.origin:
        raise CommandError("drop: expected from, the end whose bytes are lost (blackhole: both)")
    for link in found:
        if command.origin and command.origin not in link.ends:
            raise CommandError(f"from is {command.origin!r}: expected an end of {link.name}")
    return found


def apply(links: dict[frozenset[str], Link], command: Command) -> list[Link]:
    """Carries a command out, on all links that it names or on none; those links.

    Raises:
        CommandError: it does not fit them.
    """
    found = check(links, command)
    for link in found:
        shape = command.shape(link.shape)
        if shape != link.shape:
            link.reshape(shape)
        if command.fault is not None:
            link.break_(command.fault, command.origin)
    return found
