"""``skylb serve --record``: a trace of what arrives, without a text, for `skylb sim` and `skylb load`."""

from skylb.recording.fleet import Balancer
from skylb.recording.recording import Recording, check

__all__ = ["Balancer", "Recording", "check"]
