"""``skylb demo``: mock replicas, the balancer in front of them, a steady load, and a live view of it all."""

from skylb.demo.settings import DemoSettings
from skylb.demo.stage import run

__all__ = ["DemoSettings", "run"]
