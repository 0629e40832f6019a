"""One clean clone for all tests, and the wheel that they try."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from skylb import obtain
from tests.distribution.checkout import Checkout, clone

BUILD_TIMEOUT_S = 3600.0


@pytest.fixture(scope="session")
def checkout() -> Iterator[Checkout]:
    """A clean clone of what is committed."""
    with clone() as made:
        yield made


@pytest.fixture(scope="session")
def wheel(request: pytest.FixtureRequest) -> Path:
    """The wheel that WHEEL names, else one for this machine, built in the clean clone unless it is there."""
    if given := os.environ.get("WHEEL"):
        assert Path(given).is_file(), f"WHEEL={given}: expected the path of a wheel"
        return Path(given)
    made: Checkout = request.getfixturevalue("checkout")
    machine = os.uname().machine
    found = sorted((made.tree / "dist").glob(f"*-{obtain.TAG}_{machine}.whl"))
    if not found:
        build = ["make", "dist", f"MACHINES={machine}"]
        subprocess.run(build, cwd=made.tree, env=made.environment, check=True, timeout=BUILD_TIMEOUT_S)
        found = sorted((made.tree / "dist").glob(f"*-{obtain.TAG}_{machine}.whl"))
    (path,) = found
    return path
