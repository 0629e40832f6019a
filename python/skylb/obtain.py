"""How SkyLB is installed with an extra, for messages.

A release that goes to the package index sets `PUBLISHED`. A test then holds the documents to it.
"""

import json
import platform
import shlex
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import unquote, urlsplit

PUBLISHED = False
"""Whether the package index has SkyLB. Until then pip needs the path of a wheel or of a checkout."""

NAME = "skylb"

EXTRAS = {"boto3": "route53", "dnspython": "dns", "kubernetes-asyncio": "kubernetes", "matplotlib": "sim"}
"""The extra of each optional library."""

TAG = "cp311-abi3-manylinux_2_28"
"""Of every wheel: Python 3.11 or later, and glibc 2.28 or later."""


def command(extra: str) -> str:
    """The line that installs SkyLB with an extra, for a shell."""
    flag, target = ("", NAME) if PUBLISHED else _source()
    return f"pip install {flag}{shlex.quote(f'{target}[{extra}]')}"


def wheel(version: str, machine: str) -> str:
    """The name of a wheel."""
    return f"{NAME}-{version}-{TAG}_{machine}.whl"


def _source() -> tuple[str, str]:
    """A flag of pip, and what this SkyLB was installed from if pip recorded it (PEP 610), else its wheel."""
    try:
        found = distribution(NAME)
    except PackageNotFoundError:  # run from a checkout without an installation
        return "", "."
    origin = json.loads(found.read_text("direct_url.json") or "{}")
    path = unquote(urlsplit(origin.get("url", "")).path)
    if path and Path(path).exists():
        return "-e " if origin.get("dir_info", {}).get("editable") else "", path
    return "", f"./{wheel(found.version, platform.machine())}"
