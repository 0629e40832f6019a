"""Load generator: conversations against any OpenAI-compatible URL, and what their users would feel."""

from skylb.tools.load.report import Report, render
from skylb.tools.load.settings import LoadSettings
from skylb.tools.load.start import prepare, run

__all__ = ["LoadSettings", "Report", "prepare", "render", "run"]
