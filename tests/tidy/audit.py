"""``make audit``: whether an advisory names what the lock files hold.

Status 0: every package was looked up and none is named. 1: some are. 3: no database of advisories could be
reached (PyPI's, and RustSec's on GitHub), so that nothing has been shown.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

CLEAN, NAMED, UNKNOWN = 0, 1, 3

WORDS = {CLEAN: "no advisory", NAMED: "NAMED BY ADVISORIES", UNKNOWN: "NOT AUDITED"}


def python_verdict(report: dict[str, Any]) -> tuple[int, list[str]]:
    """Status and lines for a report of ``pip-audit --format json``."""
    packages = report["dependencies"]
    lines = [
        f"{package['name']} {package['version']}: {advisory['id']}, "
        f"mended in {', '.join(advisory['fix_versions']) or 'no version'}"
        for package in packages
        for advisory in package.get("vulns", ())
    ]
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    if skipped:
        lines.append(
            f"{len(skipped)} of {len(packages)} packages could not be looked up: {', '.join(skipped[:5])}..."
        )
    found = any(package.get("vulns") for package in packages)
    return NAMED if found else UNKNOWN if skipped or not packages else CLEAN, lines


def rust_verdict(report: dict[str, Any]) -> tuple[int, list[str]]:
    """Status and lines for a report of ``cargo audit --json``."""
    lines = [
        f"{entry['package']['name']} {entry['package']['version']}: {entry['advisory']['id']}"
        for entry in report["vulnerabilities"]["list"]
    ]
    return NAMED if lines else CLEAN, lines


def worst(statuses: Sequence[int]) -> int:
    """One status for several: an advisory outweighs a database that was not there."""
    return NAMED if NAMED in statuses else max(statuses, default=UNKNOWN)


def _report(command: list[str]) -> tuple[dict[str, Any] | None, str]:
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    try:
        return json.loads(ended.stdout), ""
    except json.JSONDecodeError:
        return None, (ended.stderr.strip().splitlines() or ["it said nothing"])[-1]


def main(tools: Path) -> int:
    """Looks at every lock file with the tools in a directory; prints what was found."""
    pip_audit = [
        str(tools / "pip-audit"),
        "--require-hashes",
        "--no-deps",
        "--disable-pip",
        "--format",
        "json",
        "-r",
    ]
    checks = [
        (f"requirements/{path.name}", [*pip_audit, str(path)], python_verdict)
        for path in sorted((ROOT / "requirements").glob("*.txt"))
    ]
    checks.append(("Cargo.lock", [str(tools / "cargo-audit"), "audit", "--json"], rust_verdict))
    statuses = []
    for name, command, verdict in checks:
        report, why = _report(command)
        status, lines = verdict(report) if report is not None else (UNKNOWN, [why])
        statuses.append(status)
        print(f"{name}: {WORDS[status]}")
        print("".join(f"  {line}\n" for line in lines), end="")
    return worst(statuses)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
