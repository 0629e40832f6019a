"""``skylb demo``: regions, their balancers and mock replicas, the sea between them, users, a live view."""

from skylb.demo.settings import DemoSettings
from skylb.demo.stage import run

__all__ = ["DemoSettings", "run"]
