"""How SkyLB is installed with an extra, for messages.

A release that goes to the package index sets `PUBLISHED`. A test then holds the documents to it.
"""

import json
import re
import shlex
import sys
from collections.abc import Collection
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

PUBLISHED = False
"""Whether the package index has SkyLB. Until then its installation needs the path of a wheel or checkout."""

NAME = "skylb"

EXTRAS = {"boto3": "route53", "dnspython": "dns", "kubernetes-asyncio": "kubernetes", "matplotlib": "sim"}
"""The extra of each optional library."""

TAG = "cp311-abi3-manylinux_2_28"
"""Of every wheel: Python 3.11 or later, and glibc 2.28 or later."""

_EXTRA = re.compile(r"""extra\s*==\s*['"]([\w-]+)['"]""")


def command(extra: str) -> str:
    """The line that adds an extra to this installation, for a shell.

    It names the extra's libraries, not SkyLB's wheel: that may be gone.
    """
    python, prefix = shlex.quote(sys.executable or "python3"), Path(sys.prefix)
    try:
        found = distribution(NAME)
    except PackageNotFoundError:  # run from a checkout without an installation
        return f"{python} -m pip install {shlex.quote(f'.[{extra}]')}"
    libraries = " ".join(_requirements(found, {extra}))
    if (prefix / "pipx_metadata.json").is_file():
        return f"pipx inject {shlex.quote(prefix.name)} {libraries}"
    is_tool = (prefix / "uv-receipt.toml").is_file()
    source = _source(found)
    if is_tool and source is not None:
        # What an earlier line added goes unless this one names it again.
        added = {of for library, of in EXTRAS.items() if _is_installed(library)}
        return f"uv tool install --with {' --with '.join(_requirements(found, {extra, *added}))} {source}"
    if find_spec("pip") is not None:
        return f"{python} -m pip install {libraries}"
    if is_tool or _by_uv(prefix):
        return f"uv pip install --python {python} {libraries}"
    return f"{python} -m ensurepip && {python} -m pip install {libraries}"


def wheel(version: str, machine: str) -> str:
    """The name of a wheel."""
    return f"{NAME}-{version}-{TAG}_{machine}.whl"


def _requirements(found: Distribution, extras: Collection[str]) -> list[str]:
    """What these extras bring, as words of a shell."""
    split = (line.partition(";") for line in found.requires or ())
    return [
        shlex.quote(requirement.strip())
        for requirement, _, marker in split
        if (match := _EXTRA.search(marker)) is not None and match[1] in extras
    ]


def _source(found: Distribution) -> str | None:
    """What SkyLB was installed from, as words of a shell, if that is recorded (PEP 610) and still there."""
    if PUBLISHED:
        return NAME
    try:
        origin = json.loads(found.read_text("direct_url.json") or "{}")
        path = unquote(urlsplit(origin.get("url", "")).path)
        is_editable = bool(origin.get("dir_info", {}).get("editable"))
        is_there = path != "" and Path(path).exists()
    except (OSError, ValueError, TypeError, AttributeError):  # the record is broken: it says nothing
        return None
    return ("--editable " if is_editable else "") + shlex.quote(path) if is_there else None


def _is_installed(library: str) -> bool:
    try:
        distribution(library)
    except PackageNotFoundError:
        return False
    return True


def _by_uv(prefix: Path) -> bool:
    """Whether uv made the environment: it has no pip."""
    try:
        return re.search(rb"^uv\s*=", (prefix / "pyvenv.cfg").read_bytes(), re.MULTILINE) is not None
    except OSError:
        return False
