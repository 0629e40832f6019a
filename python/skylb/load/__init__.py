"""Load generator: conversations against any OpenAI-compatible URL, and what their users would feel."""

from skylb.load.report import Report, render
from skylb.load.settings import LoadSettings
from skylb.load.start import prepare, run

__all__ = ["LoadSettings", "Report", "prepare", "render", "run"]
