"""``skylb wan``: a TCP relay that makes loopback as far, narrow and unreliable as regions are apart."""

from skylb.tools.wan.server import Relay, serve, tell
from skylb.tools.wan.settings import WanSettings

__all__ = ["Relay", "WanSettings", "serve", "tell"]
