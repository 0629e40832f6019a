"""Records the flags of other routers in ``tests/data/router_flags.json``.

    .venv/bin/python -m bench.environments peers
    .venv/bin/python -m tests.support.router_flags

asks the parsers of the installed programs. The router of production-stack cannot be installed by name. Its
flags were read in its source at the commit that its entry names, and stay as they are.
"""

import json
import subprocess
import sys
from pathlib import Path

from bench.environments import directory, version

PAGE = Path(__file__).resolve().parents[1] / "data" / "router_flags.json"

PARSERS = {
    "vllm-router": ("vllm-router", "from vllm_router.launch_router import parse_router_args as parse"),
    "smg": ("smg", "from smg.launch_router import parse_router_args as parse"),
    "smg serve": ("smg", "from smg.serve import parse_serve_args as parse"),
    "sglang-router": ("sglang-router", "from sglang_router.launch_router import parse_router_args as parse"),
}
"""The package of each program, and what imports the function that parses its command line."""

DUMP = """
import argparse, json, sys
def dump(parser, *arguments, **named):
    kinds = {None: "one", 1: "one", 0: "none", "*": "many", "+": "many"}
    print(json.dumps({
        flag: kinds[action.nargs]
        for action in parser._actions for flag in action.option_strings if flag.startswith("--")
    }))
    sys.exit(0)
argparse.ArgumentParser.parse_args = argparse.ArgumentParser.parse_known_args = dump
"""


def flags(program: str) -> dict[str, str]:
    """The flags of an installed program, with how many words follow each: none, one or many."""
    python = directory("peers") / "bin" / "python"
    code = f"{DUMP}\n{PARSERS[program][1]}\nparse([])"
    ended = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True, timeout=60)
    found: dict[str, str] = json.loads(ended.stdout)
    found.pop("--help", None)
    return dict(sorted(found.items()))


def main() -> None:
    """Writes what the programs say."""
    known = json.loads(PAGE.read_text())
    for program, (package, _) in PARSERS.items():
        known[program] = {"version": version("peers", package), "flags": flags(program)}
    PAGE.write_text(json.dumps(known, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
