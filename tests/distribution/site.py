"""Builds the documentation site into ``site/``, from the pages of the repository and nothing else.

``make docs-site`` runs this with an environment that has Sphinx. The pages keep their places, so that their
links hold: README is the first page, and ``docs/`` and the results stand beside it. A file that a page
links to comes along. Sphinx then checks every link and every anchor, and a fault ends the build. The site
loads nothing from other hosts. It works from a web server, and as files.
"""

import posixpath
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "site"
OURS = ROOT / "docs" / "site"

_PARTS: dict[str, dict[str, str]] = {
    "Tutorials": {
        "Three regions on a laptop": "TUTORIAL.md",
        "The demo": "DEMO.md",
    },
    "How to": {
        "Install": "INSTALL.md",
        "Deploy": "DEPLOY.md",
        "Put SkyLB in front of a fleet": "howto/fleet.md",
        "Find out why a request was slow": "howto/slow.md",
        "Take a replica out": "howto/replica.md",
        "Take a region out": "howto/evacuate.md",
        "Add a region": "howto/region.md",
        "Choose the number of replicas": "howto/size.md",
        "Run in Kubernetes": "KUBERNETES.md",
        "Switch from another router": "MIGRATING.md",
        "Answer an alert": "RUNBOOK.md",
        "Trace requests": "TRACING.md",
        "Record and replay": "RECORDING.md",
        "Send test load": "LOAD.md",
        "Simulate": "SIMULATOR.md",
    },
    "Reference": {
        "API": "API.md",
        "Commands": "COMMANDS.md",
        "Settings": "CONFIGURATION.md",
        "Operations": "OPERATIONS.md",
        "Streams that go on": "CONTINUING.md",
        "Metrics": "METRICS.md",
        "Keys and limits": "GUARD.md",
        "What passes": "PASSING.md",
        "Limits": "LIMITS.md",
        "Promises": "PROMISES.md",
        "Scenario files": "SCENARIO.md",
        "Glossary": "GLOSSARY.md",
        "Changelog": "../CHANGELOG.md",
    },
    "Explanation": {
        "How a replica is chosen": "ALGORITHM.md",
        "Why it went there": "EXPLAIN.md",
        "Regions": "REGIONS.md",
        "Isolation of tenants": "ISOLATION.md",
        "Other routers": "COMPARISON.md",
        "Evaluation": "EVALUATION.md",
        "What was tried": "TRIED.md",
        "Architecture": "ARCHITECTURE.md",
        "Contributing": "../CONTRIBUTING.md",
        "Security": "../SECURITY.md",
    },
}
"""The navigation: parts, and in each the titles of its pages below `docs/`. Pages not there are left out."""

PARTS = {
    part: {title: posixpath.normpath(f"docs/{page}") for title, page in entries.items()}
    for part, entries in _PARTS.items()
}
"""The same from the repository's root."""

FIRST = "README.md"
RESULTS = "bench/results"
_FIRST = re.compile(r"\]\(((?:\.\./)*)README\.md")
"""A link to the first page, which is `index.md` in the site."""
_FILE = re.compile(r"\[[\w/]*[A-Z]+\.md\]\((?P<target>[^)#\s]+\.md)(?P<anchor>[^)\s]*)\)")
"""A link whose words are the name of a page's file."""
ORPHAN = "---\norphan: true\n---\n\n"
_LINK = re.compile(r"\]\(([^)\s#]+)")
_FENCE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)


def pages() -> list[str]:
    """Every page of the site, README first, from the repository's root."""
    listed = [page for part in PARTS.values() for page in part.values() if (ROOT / page).exists()]
    results = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / RESULTS).glob("*.md"))
    return [FIRST, *listed, *results]


def unlisted() -> list[str]:
    """Documents that have no place in the navigation."""
    there = {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")}
    return sorted(there - {page for part in PARTS.values() for page in part.values()})


def contents() -> str:
    """The navigation, as tables of contents of Sphinx at the end of the first page."""
    results = {Path(page).stem: page for page in pages() if page.startswith(f"{RESULTS}/")}
    text = ""
    for part, entries in {**PARTS, "Results": results}.items():
        lines = [f"{title} <{page}>" for title, page in entries.items() if (ROOT / page).exists()]
        text += "\n```{toctree}\n:hidden:\n:caption: " + part + "\n\n" + "\n".join(lines) + "\n```\n"
    return text


def linked(page: str) -> set[str]:
    """Where a page links to within the repository, as it is written."""
    text = _FENCE.sub("", (ROOT / page).read_text())
    return {target for target in _LINK.findall(text) if not re.match(r"[a-z]+:", target)}


def _titled(page: str, match: re.Match[str]) -> str:
    """A link by the title of the page instead of its file's name."""
    path = (ROOT / page).parent / match["target"]
    heading = re.search(r"^# +(.+)$", path.read_text(), re.MULTILINE) if path.exists() else None
    return f"[{heading[1]}]({match['target']}{match['anchor']})" if heading is not None else match[0]


def stage(into: Path) -> None:
    """Copies the pages and what they link to."""
    for page in pages():
        text = _FILE.sub(lambda match, page=page: _titled(page, match), (ROOT / page).read_text())
        text = _FIRST.sub(r"](\1index.md", text)
        for target in linked(page):
            path = ((ROOT / page).parent / target).resolve()
            assert path.is_relative_to(ROOT), f"{page}: {path} is outside the repository"
            if path.is_dir():
                text = text.replace(f"]({target})", f"]({target.rstrip('/')}/index.md)")
                _list(path, into)
            elif path.relative_to(ROOT).as_posix() not in pages():
                _copy(path, into)
        place = into / ("index.md" if page == FIRST else page)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text + contents() if page == FIRST else text)
    shutil.copytree(OURS, into, dirs_exist_ok=True)


def _copy(path: Path, into: Path) -> None:
    """Copies a file that is in no table of contents."""
    target = into / path.relative_to(ROOT)
    target.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".md":
        target.write_text(ORPHAN + path.read_text())
    else:
        shutil.copy(path, target)


def _list(directory: Path, into: Path) -> None:
    """A page in place of a directory: its files, which come along."""
    files = sorted(path for path in directory.iterdir() if path.is_file())
    for path in files:
        _copy(path, into)
    lines = [f"- [{path.name}]({path.name})" for path in files]
    text = f"{ORPHAN}# {directory.relative_to(ROOT)}\n\n" + "\n".join(lines) + "\n"
    (into / directory.relative_to(ROOT) / "index.md").write_text(text)


def build() -> int:
    """Builds the site; the status of Sphinx."""
    shutil.rmtree(SITE, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="skylb-site-") as directory:
        source, cache = Path(directory, "pages"), Path(directory, "cache")
        source.mkdir()
        stage(source)
        strict = ["--fail-on-warning", "--keep-going", "--quiet", "-d", str(cache)]
        command = [sys.executable, "-m", "sphinx", "-b", "html", *strict, str(source), str(SITE)]
        return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    status = build()
    if status == 0:
        print(f"site: {SITE / 'index.html'}")
    sys.exit(status)
