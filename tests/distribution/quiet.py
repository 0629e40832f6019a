"""A network of its own with nothing but loopback: the fixed ports of a page's commands disturb nobody."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

HOLD = "ip link set lo up && echo up && exec sleep infinity"


@contextmanager
def network() -> Iterator[list[str] | None]:
    """Makes one; the words that begin a command in it. ``None``: this machine does not allow it."""
    if not all(map(shutil.which, ("unshare", "nsenter", "ip"))):
        yield None
        return
    holder = subprocess.Popen(
        ["unshare", "--map-root-user", "--net", "sh", "-c", HOLD],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert holder.stdout is not None
        up = holder.stdout.readline() == "up\n"
        inside = ["nsenter", f"--target={holder.pid}", "--user", "--net", "--preserve-credentials"]
        yield inside if up else None
    finally:
        holder.kill()
        holder.wait()
        if holder.stdout is not None:
            holder.stdout.close()
