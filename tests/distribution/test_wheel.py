"""A wheel in a bare environment: without Rust, without the tree, with nothing but what pip installs."""

import json
import os
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.distribution import bare as environments
from tests.distribution.bare import Bare
from tests.distribution.checkout import ROOT
from tests.distribution.emulated import SMOKE
from tests.support.processes import PATIENCE_S, Child, answers, free_port, get

STARTS = 5
START_IMPORTS_MAX = 3.0
"""CPU time of a start, as a multiple of that of importing the libraries, as docs/INSTALL.md promises.
Where a start takes 0.36 s, that import takes 0.22 s."""

IMPORTS = "import aiohttp.web, msgspec, orjson, prometheus_client, pydantic, rich, uvloop"

CHAT = {"model": "mock", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}

BASE: str = sys._base_executable  # type: ignore[attr-defined]  # outside a virtual environment


def trees(wheel: Path) -> list[Path]:
    """Where the wheel may have come from, except where the interpreter is."""
    return sorted({ROOT, wheel.parent.parent} - set(Path(BASE).parents))


@pytest.fixture(scope="module")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Bare:
    made = environments.make(tmp_path_factory.mktemp("bare"), wheel, trees(wheel), BASE)
    print(f"hidden from it: {', '.join(map(str, made.hidden)) or 'NO TREE (this machine does not allow it)'}")
    return made


@contextmanager
def started(bare: Bare, *words: str) -> Iterator[Child]:
    child = Child(bare.command(*words))
    try:
        yield child
    finally:
        child.stop()


@pytest.fixture(scope="module")
def replicas(bare: Bare) -> Iterator[list[str]]:
    with started(bare, "skylb", "mock", "--count", "2", "--listen", "127.0.0.1:0") as child:
        child.require(lambda: "ready\n" in child.text(), what="mock replicas")
        yield re.findall(r"http://[\d.]+:\d+", child.text())


def serve_words(replicas: list[str], port: int, admin: int) -> list[str]:
    words = ["skylb", "serve", "--listen", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{admin}"]
    return words + [word for replica in replicas for word in ("--replica", replica)]


def test_it_is_what_runs_and_there_is_no_rust(bare: Bare) -> None:
    code = "from shutil import which; from skylb import _core as c; "
    ended = bare.run("python", "-c", f"{code}print(c.__file__, which('cargo'), which('rustc'))")
    file, *rust = ended.stdout.split()
    assert Path(file).is_relative_to(bare.directory / "venv"), ended
    assert rust == ["None", "None"]
    assert all(
        bare.run(BASE, "-c", f"import os; print(os.listdir({str(tree)!r}))").stdout == "[]\n"
        for tree in bare.hidden
    )


def start_s(bare: Bare, replicas: list[str]) -> tuple[float, float]:
    """Time and CPU time until a balancer that is started answers a client."""
    port, admin = free_port(), free_port()
    began = time.monotonic()
    with started(bare, *serve_words(replicas, port, admin)) as child:
        child.require(lambda: answers(f"http://127.0.0.1:{port}/v1/models"), what="an answer")
        return time.monotonic() - began, child.cpu_s()


def imports_s(bare: Bare) -> float:
    """CPU time of a Python that imports SkyLB's libraries, and nothing of SkyLB."""
    before = os.times()
    ended = bare.run("python", "-c", IMPORTS)
    after = os.times()
    assert ended.returncode == 0, ended
    return after.children_user + after.children_system - before.children_user - before.children_system


def test_a_start_costs_little_more_than_the_import_of_the_libraries(bare: Bare, replicas: list[str]) -> None:
    imports, starts = [], []
    for _ in range(STARTS):  # in turn: both see the same machine
        imports.append(imports_s(bare))
        starts.append(start_s(bare, replicas))
    wall, cpu = (statistics.median(values) for values in zip(*starts, strict=True))
    print(f"skylb serve answers after {wall:.2f} s (median of {STARTS}; least {min(starts)[0]:.2f} s)")
    importing = statistics.median(imports)
    print(f"CPU time of that: {cpu:.2f} s; of the import of the libraries: {importing:.2f} s")
    assert cpu < START_IMPORTS_MAX * importing


def test_a_chat_is_answered_and_the_live_page_is_there(bare: Bare, replicas: list[str]) -> None:
    port, admin = free_port(), free_port()
    with started(bare, *serve_words(replicas, port, admin)) as child:
        child.require(lambda: answers(f"http://127.0.0.1:{port}/v1/models"), what="an answer")
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/v1/chat/completions",
            json.dumps(CHAT).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            assert json.load(answer)["usage"]["completion_tokens"] == CHAT["max_tokens"]
        page = get(f"http://127.0.0.1:{admin}/").decode()
        assert "<style>" in page
        assert "<script>" in page


def test_the_demo_serves_three_regions_and_ends(bare: Bare) -> None:
    ended = bare.run("skylb", "demo", "--duration-s", "10")
    assert ended.returncode == 0, ended
    answered = dict(re.findall(r"^(\w+): (\d+) answered", ended.stdout, re.MULTILINE))
    assert len(answered) == 3
    assert all(map(int, answered.values())), ended.stdout


def test_an_example_is_simulated_by_its_name_and_from_a_file(bare: Bare) -> None:
    listed = [line.split()[0] for line in bare.run("skylb", "sim", "--example").stdout.splitlines()]
    assert {"chat", "regions"} <= set(listed)
    by_name = bare.run("skylb", "sim", "chat")
    assert by_name.returncode == 0, by_name
    (bare.directory / "own.toml").write_text(bare.run("skylb", "sim", "--example", "chat").stdout)
    by_file = bare.run("skylb", "sim", "own.toml")
    assert rows(by_file.stdout) == rows(by_name.stdout)
    assert len(rows(by_name.stdout)) > 3


def rows(text: str) -> list[str]:
    """The lines of a report without the time that it took."""
    return [line for line in text.splitlines() if line and not line.endswith(" s")]


def test_an_extra_that_is_missing_is_installed_by_the_line_of_the_message(bare: Bare) -> None:
    plots = ["skylb", "sim", "chat", "--plots", "plots"]
    ended = bare.run(*plots)
    assert ended.returncode == 2
    found = re.search(r"matplotlib is not installed: (.+)", ended.stderr)
    assert found is not None, ended.stderr
    install = [*shlex.split(found[1]), "--quiet", "--disable-pip-version-check"]
    subprocess.run(bare.command(*install), check=True, timeout=environments.INSTALL_TIMEOUT_S)
    ended = bare.run(*plots)
    assert ended.returncode == 0, ended
    made = {path.suffix for path in (bare.directory / "plots").iterdir()}
    assert {".png", ".html"} <= made


def interpreter(minor: int) -> str | None:
    """Where a Python 3 of this minor version is; pyenv shows one only if it is asked for."""
    name = f"python3.{minor}"
    if shutil.which(name) is None:
        return None
    ask = [name, "-c", "import sys; print(sys.executable)"]
    environment = os.environ | {"PYENV_VERSION": f"3.{minor}"}
    ended = subprocess.run(ask, env=environment, capture_output=True, text=True, check=False)
    return ended.stdout.strip() or None


@pytest.mark.parametrize("minor", [12, 13, 14])
def test_it_runs_on_a_later_python(minor: int, wheel: Path, tmp_path: Path) -> None:
    python = interpreter(minor)
    if python is None:
        pytest.skip(f"there is no Python 3.{minor} here")
    made = environments.make(tmp_path, wheel, trees(wheel), python)
    ended = Bare(made.directory, ()).run("python", SMOKE)
    assert ended.returncode == 0, ended
    print(ended.stdout)
    assert json.loads(ended.stdout)["python"].startswith(f"3.{minor}.")
