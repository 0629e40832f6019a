"""A network namespace per region, joined pair by pair, where the machine allows it (root, iproute2, nft).

Every region has an address of its own that the others reach over one veth pair each, so that one pair of
regions can be cut while the rest goes on. Nothing outside the namespaces is touched.
"""

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import combinations
from pathlib import Path

CLONE_NEWNET = 0x40000000
"""Of setns(2), which Python has from 3.12 on."""

TABLE = "inet skylb_cut"

_libc = ctypes.CDLL(None, use_errno=True)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)


def allowed() -> bool:
    """Whether namespaces with packet filters can be made here."""
    if os.geteuid() != 0 or shutil.which("ip") is None or shutil.which("nft") is None:
        return False
    try:
        with Namespaces.made(["probe"]) as found:
            _run(*found.command("probe"), "nft", "add", "table", *TABLE.split())
    except subprocess.CalledProcessError:
        return False
    return True


def _enter(file: int) -> None:
    if _libc.setns(file, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


class Namespaces:
    """The namespaces of some regions, while they exist.

    Args:
        names: of the regions.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._numbers = {name: number for number, name in enumerate(names, 1)}

    @classmethod
    @contextmanager
    def made(cls, names: Sequence[str]) -> Iterator["Namespaces"]:
        """Makes them, and takes them away at the end."""
        found = cls(names)
        with ExitStack() as stack:
            for name in names:
                _run("ip", "netns", "add", found.namespace(name))
                stack.callback(_run, "ip", "netns", "del", found.namespace(name))
                found._ip(name, "link", "set", "lo", "up")
                found._ip(name, "address", "add", f"{found.address(name)}/32", "dev", "lo")
            for one, other in combinations(names, 2):
                found._join(one, other)
            yield found

    def namespace(self, name: str) -> str:
        """What the system calls it."""
        return f"skylb-{os.getpid()}-{name}"

    def address(self, name: str) -> str:
        """A region's address."""
        return f"10.77.{self._numbers[name]}.1"

    def command(self, name: str) -> list[str]:
        """What a command begins with to run there."""
        return ["ip", "netns", "exec", self.namespace(name)]

    @contextmanager
    def entered(self, name: str) -> Iterator[None]:
        """This thread, and those it starts, open their sockets there."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        there = os.open(Path("/run/netns", self.namespace(name)), os.O_RDONLY)
        try:
            _enter(there)
            try:
                yield
            finally:
                _enter(before)
        finally:
            os.close(there)
            os.close(before)

    def _ip(self, name: str, *words: str) -> None:
        _run("ip", "-n", self.namespace(name), *words)

    def _join(self, one: str, other: str) -> None:
        ends = {one: f"to-{other}", other: f"to-{one}"}
        _run(
            *("ip", "link", "add", ends[one], "netns", self.namespace(one)),
            *("type", "veth", "peer", "name", ends[other], "netns", self.namespace(other)),
        )
        for here in (one, other):
            self._ip(here, "link", "set", ends[here], "up")
        for here, there in ((one, other), (other, one)):
            self._route(here, there)

    def _route(self, here: str, there: str) -> None:
        addresses = (f"{self.address(there)}/32", "dev", f"to-{there}", "src", self.address(here))
        self._ip(here, "route", "replace", *addresses)

    # ------------------------------------------------------------------------- cuts

    def link(self, one: str, other: str, *, up: bool) -> None:
        """Takes the pair between two regions down, or up again with its routes."""
        self._ip(one, "link", "set", f"to-{other}", "up" if up else "down")
        if up:
            self._route(one, other)

    def drop(self, here: str, *rules: str) -> None:
        """Packets that a rule of nft matches go no further: each is ``input RULE`` or ``output RULE``."""
        chain = "add chain {0} {1} {{ type filter hook {1} priority 0; }}"
        lines = [f"add table {TABLE}", *(chain.format(TABLE, hook) for hook in ("input", "output"))]
        lines += [f"add rule {TABLE} {rule} drop" for rule in rules]
        _run(*self.command(here), "nft", "\n".join(lines))

    def pass_all(self, here: str) -> None:
        """Takes the rules away."""
        _run(*self.command(here), "nft", "delete", "table", *TABLE.split())
