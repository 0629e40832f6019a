"""``skylb demo``: regions, their balancers and mock replicas, the sea between them, users, a live view."""

from skylb.tools.demo.settings import DemoSettings
from skylb.tools.demo.stage import run

__all__ = ["DemoSettings", "run"]
