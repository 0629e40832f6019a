"""The image's recipe, as far as it can be checked without building it, and what it says of the program."""

import fnmatch
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from skylb import _core
from tests.support.processes import PATIENCE_S, SKYLB, Child, eventually, get, mocks
from tests.support.report import started

ROOT = Path(__file__).resolve().parents[2]
RECIPE = (ROOT / "deploy" / "Containerfile").read_text()
STEPS = [
    line.split(None, 1)
    for line in re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", RECIPE, flags=re.MULTILINE)).splitlines()
    if line.strip()
]


def steps(name: str) -> list[str]:
    return [rest for step, rest in STEPS if step == name]


def ignored(path: str) -> bool:
    """Whether `.containerignore` keeps a path out: the last line that fits counts."""
    out = False
    for line in (ROOT / ".containerignore").read_text().splitlines():
        pattern = line.removeprefix("!").removeprefix("**/")
        parents = [path, *(str(parent) for parent in Path(path).parents)]
        names = [*parents, *(Path(parent).name for parent in parents)] if "**/" in line else parents
        if line and not line.startswith("#") and any(fnmatch.fnmatchcase(name, pattern) for name in names):
            out = not line.startswith("!")
    return out


def test_what_is_copied_is_there_and_is_not_ignored() -> None:
    copied = [word for rest in steps("COPY") for word in rest.split()[:-1]]
    bound = re.findall(r"type=bind,source=([\w./-]+)", RECIPE)
    assert {"rust", "python", "Cargo.lock", "requirements/run.txt"} <= {*copied, *bound}
    for path in (*copied, *bound):
        assert (ROOT / path).exists(), path
        assert not ignored(path), path
    assert ignored("tests/conftest.py")
    assert ignored("python/skylb/_core.abi3.so")
    assert not ignored("python/skylb/tools/sim/scenarios/chat.toml")


def test_every_package_of_the_image_is_named_by_its_hash() -> None:
    fetching = [word for rest in steps("RUN") for word in rest.split("&&") if "pip install" in word]
    assert len(fetching) == 3
    assert all("--require-hashes" in word or "--no-index" in word for word in fetching)


def test_its_user_is_nobody_and_its_command_takes_flags() -> None:
    assert steps("USER") == ["65532:65532"]
    assert (json.loads(steps("ENTRYPOINT")[0]), json.loads(steps("CMD")[0])) == (["skylb"], ["serve"])


def test_its_version_is_the_programs() -> None:
    assert f"VERSION={_core.__version__}" in steps("ARG")


def test_its_health_check_passes_while_the_program_runs_and_fails_otherwise() -> None:
    (health,) = steps("HEALTHCHECK")
    interpreter, flag, code = json.loads(health.partition("CMD ")[2])
    assert interpreter == "python3", "that of the image's PATH"

    def check(admin: str) -> int:
        here = code.replace("http://127.0.0.1:8081", admin)
        assert here != code
        return subprocess.run(
            [sys.executable, flag, here], capture_output=True, timeout=60, check=False
        ).returncode

    balancer = started("--replica", "http://127.0.0.1:9")
    try:
        assert check(balancer.admin) == 0, "it is alive, though no replica is"
    finally:
        assert balancer.child.stop(PATIENCE_S) == 0
    assert check(balancer.admin) != 0


READ_ONLY = """
mount --make-rprivate /
while read -r _ target type _; do
    case "$type" in proc|sysfs|cgroup*|devpts) continue ;; esac
    mount -o remount,bind,ro "$target" 2>/dev/null || true
done </proc/self/mounts
mount -o remount,bind,ro / || exit 77
! touch "$1/x" 2>/dev/null || exit 77
shift
exec "$@"
"""


def test_the_program_needs_no_file_system_that_it_can_write_to(tmp_path: Path) -> None:
    prefix = ["unshare", "--mount", "sh", "-c", READ_ONLY, "sh", str(tmp_path)]
    if shutil.which("unshare") is None or subprocess.run([*prefix, "true"], check=False).returncode:
        pytest.skip("needs the right to make a mount namespace")
    with mocks(1, "--profile", "instant") as urls:
        serve = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--replica", urls[0]]
        child = Child([*prefix, *SKYLB, "serve", *serve])
        try:
            child.require(lambda: "try: curl" in child.text(), what="report")
            (admin,) = re.findall(r"^  admin +(\S+)$", child.text(), re.MULTILINE)
            (line,) = re.findall(r"^try: (curl .*)$", child.text(), re.MULTILINE)
            eventually(lambda: get(f"{admin}/ready"), what="ready")
            said = subprocess.run(line, shell=True, capture_output=True, text=True, timeout=60, check=True)
            assert "data: [DONE]" in said.stdout
            assert get(f"{admin}/metrics")
            assert "Read-only" not in child.text()
        finally:
            assert child.stop(PATIENCE_S) == 0
