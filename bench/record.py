"""Where results are kept, and where they were measured."""

import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results"


def machine() -> dict[str, str]:
    """Where this was measured."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.processor(),
    )
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return {
        "cpu": model,
        "cores": str(os.cpu_count()),
        "python": platform.python_version(),
        "commit": commit.stdout.strip(),
    }


def keep(name: str, lines: Sequence[str]) -> None:
    """Writes ``bench/results/NAME.md``: what ``make NAME`` printed, and where."""
    RESULTS.mkdir(exist_ok=True)
    about = ", ".join(machine().values())
    text = "\n".join(lines)
    (RESULTS / f"{name}.md").write_text(f"# make {name}\n\n{about}\n\n```\n{text}\n```\n")
