"""`skylb doctor`: looks at what a configuration would meet, and starts nothing that listens."""

import asyncio
import logging

from skylb.config import Settings
from skylb.tools.doctor import keys, machine, peers, replicas
from skylb.tools.doctor.findings import Report, as_json, render

__all__ = ["Report", "as_json", "examine", "render"]

TIME_S = 60.0
"""For everything: what was not looked at by then is a fault."""


async def examine(settings: Settings, *, ask: bool = False, time_s: float = TIME_S) -> Report:
    """Looks at files, descriptors, addresses, replicas and peers.

    Args:
        settings: what a balancer would run with.
        ask: send each replica a request of one token.
        time_s: for all of it.
    """
    logging.getLogger("skylb").addHandler(logging.NullHandler())
    logging.getLogger("skylb").propagate = False  # what parts would log is in the report
    report = Report()
    machine.look_at_files(settings, report)
    machine.look_at_guards(settings, report)
    document = keys.look_at_keys(settings, report)
    machine.look_at_descriptors(settings, report)
    try:
        async with asyncio.timeout(time_s):
            await machine.look_at_addresses(settings, report)
            found = await replicas.find(settings, report)
            seen, _ = await asyncio.gather(
                replicas.look(settings, found, report, ask=ask), peers.look(settings, report)
            )
            if document is not None:
                keys.look_at_models(document, seen, report)
    except TimeoutError:
        report.fault(
            "time", f"not everything was looked at in {time_s:g} s", "see which replicas and peers hang"
        )
    return report
