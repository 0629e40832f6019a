"""One HTML page of a report: its table and its plots, in a file that needs no other."""

import base64
from collections.abc import Sequence
from html import escape

from skylb.sim.report import Report, render

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem;"
    "color:#222;background:#fff}"
    "pre{overflow-x:auto;background:#f6f6f6;padding:1rem;font-size:13px}"
    "img{max-width:100%;height:auto;margin:1rem 0}"
)


def page(report: Report, images: Sequence[tuple[str, str, bytes]]) -> str:
    """The page.

    Args:
        report: what to show.
        images: name, title and PNG of each plot.
    """
    title = escape(f"skylb sim {report.scenario_file}")
    figures = "".join(
        f'<img id="{escape(name)}" alt="{escape(about)}" '
        f'src="data:image/png;base64,{base64.b64encode(image).decode()}">\n'
        for name, about, image in images
    )
    return (
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{title}</title>\n'
        f"<style>{_STYLE}</style></head>\n<body>\n<h1>{title}</h1>\n<pre>{escape(render(report))}</pre>\n"
        f"{figures}</body>\n</html>\n"
    )
