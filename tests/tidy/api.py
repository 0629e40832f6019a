"""The tables of docs/API.md: the admin listener's requests, and the headers that settings name."""

import inspect
import re
from unittest.mock import MagicMock

from aiohttp import web

from skylb.addresses import ListenAddress
from skylb.admin import Admin
from skylb.admin.server import OPEN_PATHS
from skylb.config import Settings
from skylb.data.cors import ANSWER_HEADERS
from skylb.options import options

_PART = re.compile(r"\(\?P<(\w+)>([^)]*)\)")
"""A variable part of a path, as aiohttp compiles it."""


def admin_routes() -> list[tuple[str, str, str]]:
    """What the admin listener answers: methods and path, who may ask, and the handler's docstring.

    Raises:
        AssertionError: a handler has no docstring.
    """
    app = Admin(MagicMock(), ListenAddress("127.0.0.1", 0), None)._runner.app
    found: list[tuple[str, str, str]] = []
    for route in app.router.routes():
        if route.method == "HEAD":
            continue
        text = inspect.getdoc(route.handler)
        assert text, f"{route.method} {_path(route)}: its handler lacks a docstring"
        asks = "everybody" if _path(route) in OPEN_PATHS else "operators"
        requests = ", ".join(f"`{route.method} {path}`" for path in _paths(route))
        found.append((requests, asks, " ".join(text.split())))
    return sorted(found, key=lambda row: row[0].strip("`").split(" ")[::-1])


def _path(route: web.AbstractRoute) -> str:
    return route.resource.canonical if route.resource is not None else ""


def _paths(route: web.AbstractRoute) -> list[str]:
    """The paths of a route: one for each of the words that a part of it can be."""
    info = route.resource.get_info() if route.resource is not None else {}
    if "pattern" not in info:
        return [_path(route)]
    paths = [_path(route)]
    for name, pattern in _PART.findall(info["pattern"].pattern):
        words = pattern.split("|") if re.fullmatch(r"\w+(\|\w+)+", pattern) else [name.upper()]
        paths = [path.replace(f"{{{name}}}", word) for path in paths for word in words]
    return paths


def header_settings() -> list[tuple[str, str]]:
    """The settings whose value is the name of a header: flag and help."""
    found = [option for option in options(Settings) if option.path[-1].endswith("_header")]
    return [(f"`{option.flag}`", option.description) for option in found]


def missing_headers(text: str) -> list[str]:
    """Headers of answers, as a browser may read them, that the page does not name."""
    named = {name for name in ANSWER_HEADERS if name not in {"*", "Metadata"}}
    return sorted(name for name in named if f"`{name}`" not in text)
