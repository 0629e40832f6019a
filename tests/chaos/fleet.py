"""Mock replicas with a process each, so that signals mean them."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from tests.support.processes import Child, start_mocks

ARGUMENTS = ("--profile", "l4-8b", "--time-scale", "0.3", "--max-num-seqs", "16")


class Fleet:
    """Replicas that are killed, stopped, and started again at their addresses."""

    def __init__(self, children: list[Child], urls: list[str]) -> None:
        self.children = children
        self.urls = urls

    def __len__(self) -> int:
        return len(self.urls)

    def kill(self, index: int) -> None:
        """SIGKILL."""
        self.children[index].send(signal.SIGKILL)
        self.children[index].stop()

    def start(self, index: int) -> None:
        """The same address again, with nothing cached."""
        listen = self.urls[index].removeprefix("http://")
        self.children[index], _ = start_mocks(1, *ARGUMENTS, listen=listen)

    def freeze(self, index: int) -> None:
        """SIGSTOP: connections stay, nothing is answered."""
        self.children[index].send(signal.SIGSTOP)

    def thaw(self, index: int) -> None:
        """SIGCONT."""
        self.children[index].send(signal.SIGCONT)

    def stop(self) -> None:
        """Ends all."""
        for child in self.children:
            child.send(signal.SIGCONT)
            child.stop()


@contextmanager
def fleet(count: int) -> Iterator[Fleet]:
    """So many replicas."""
    with ExitStack() as undo:
        made = Fleet([], [])
        undo.callback(made.stop)
        for _ in range(count):
            child, urls = start_mocks(1, *ARGUMENTS)
            made.children.append(child)
            made.urls += urls
        yield made


@contextmanager
def reference() -> Iterator[str]:
    """A replica that nothing happens to, and that answers at once; its URL."""
    child, urls = start_mocks(1, "--profile", "instant")
    try:
        yield urls[0]
    finally:
        child.stop()
