"""How long a request waits for whom, phase by phase."""

import math

from skylb.config import TimeoutSettings
from skylb.data.crossing import SILENT_S
from skylb.data.phases import Phase


def silence_max_s(timeouts: TimeoutSettings, phase: Phase, *, streaming: bool, forwarded: bool) -> float:
    """How long the other side may be silent in this phase, in seconds.

    Args:
        timeouts: the settings.
        phase: where the request is.
        streaming: its response is a stream of events.
        forwarded: the other side is a peer, which says every second that it waits as well.
    """
    if phase is Phase.WAIT:
        return SILENT_S if forwarded else timeouts.first_byte_s
    return timeouts.stream_idle_s if streaming else math.inf
