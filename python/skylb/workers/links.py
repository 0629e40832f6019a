"""The supervisor's side of the lines: it makes each anew that ends without a death."""

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from skylb.clock import monotonic_ns
from skylb.tasks import TaskGroup
from skylb.workers import orders
from skylb.workers.children import Child
from skylb.workers.orders import ENGINE, Broken

log = logging.getLogger("skylb.workers")

PAUSE_S = 0.1
"""Before something is tried again that has failed soon; twice as long each time."""
PAUSE_MAX_S = 5.0

LINE_PAUSE_MAX_S = 1.0
"""Before a line is made anew, at most. A worker without a line accepts connections, and its requests wait for
`PATIENCE_S`: behind that it would refuse them at once, be free first, and get the most."""

LASTING_S = 10.0
"""What has lasted so long has not failed at once."""

FAULTS_IN_A_ROW = 3
"""After so many faults of a worker's lines in a row, the process that was blamed ends. After as many
more, the one that has blamed it ends."""


@dataclass(eq=False)
class Link:
    """The two ends of one line, and what was reported of it."""

    serial: int
    engine: Child
    worker: Child
    began_ns: int
    broken: bool = False
    blamed: list[Child] = field(default_factory=list)

    def other(self, child: Child) -> Child:
        """The process at the other end."""
        return self.worker if child is self.engine else self.engine


class Links:
    """One line between the engine process and each worker.

    Args:
        children: the processes that live, by their numbers.
        starts: how often processes have been started again, by kind.
        tasks: in which lines are made anew.
    """

    def __init__(self, children: Mapping[int, Child], starts: Counter[str], tasks: TaskGroup) -> None:
        self._children = children
        self._starts = starts
        self._tasks = tasks
        self._links: dict[int, Link] = {}
        self._last = 0
        self._failures: Counter[int] = Counter()
        """Lines of a worker that have ended soon, in a row."""
        self._faults: Counter[int] = Counter()
        """Those of them that have ended by somebody's fault."""

    def connect(self, worker: int) -> None:
        """Gives a worker and the engine process the two ends of a line, if both live.

        An end that cannot be given closes: the other process reports that.
        """
        engine, child = self._children.get(ENGINE), self._children.get(worker)
        if engine is None or child is None or engine.ended or child.ended:
            return  # who takes the place of the dead one is connected
        self._last += 1
        self._links[worker] = link = Link(self._last, engine, child, monotonic_ns())
        try:
            ends = socket.socketpair()
        except OSError as error:
            log.warning("worker %d: no line can be made: %s; tried again", worker, error.strerror or error)
            self._anew(worker, link)
            return
        with ends[0], ends[1]:
            for to, peer, of, end in ((engine, worker, child, ends[0]), (child, ENGINE, engine, ends[1])):
                line = orders.Line(peer, self._last, of.pid, dict(self._starts))
                to.order(line, [end.fileno()])

    def broken(self, child: Child, report: Broken) -> None:
        """A child reports that a line has ended."""
        link = self._links.get(report.worker)
        if link is None or link.serial != report.serial or child not in {link.engine, link.worker}:
            return
        if report.why:
            log.error(
                "process %d has ended its line to process %d: %s",
                child.pid,
                link.other(child).pid,
                report.why,
            )
            link.blamed.append(link.other(child))
        self._anew(report.worker, link)

    def _anew(self, worker: int, link: Link) -> None:
        if not link.broken:
            link.broken = True
            self._tasks.start(self._mend(worker, link), name="line")

    async def _mend(self, worker: int, link: Link) -> None:
        """Makes a line anew, unless a death has ended it: then who takes the dead one's place gets one."""
        if monotonic_ns() - link.began_ns > LASTING_S * 1e9:
            del self._failures[worker], self._faults[worker]
        await asyncio.sleep(_pause_s(self._failures[worker]))
        if self._links.get(worker) is not link or link.engine.ended or link.worker.ended:
            return
        self._failures[worker] += 1
        if link.blamed:
            self._faults[worker] += 1
            if self._faults[worker] % FAULTS_IN_A_ROW == 0:
                first = self._faults[worker] == FAULTS_IN_A_ROW
                guilty = link.blamed[0] if first else link.other(link.blamed[0])
                if not first:
                    del self._faults[worker]
                log.error("process %d: its lines fail again and again: it is ended", guilty.pid)
                guilty.kill()
                return
        self.connect(worker)


def _pause_s(failures: int) -> float:
    return min(PAUSE_S * (1 << min(failures, 10)), LINE_PAUSE_MAX_S)
