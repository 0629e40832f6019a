"""Records what other routers are like in ``tests/data/routers.json``: flags, and the names of metrics.

    .venv/bin/python -m bench.environments peers
    .venv/bin/python -m tests.support.routers

asks the parsers of the installed programs, and runs each in front of a mock replica. The router of
production-stack cannot be installed by name. Its flags and metrics were read in its source at the commit that
its entry names, and stay as they are.
"""

import json
import re
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

from bench.environments import directory, version
from tests.support.processes import Child, answers, eventually, free_port, get, start_mocks

PAGE = Path(__file__).resolve().parents[1] / "data" / "routers.json"

BODY = b'{"model": "mock", "max_tokens": 2, "messages": [{"role": "user", "content": "Hi"}]}'

COMMANDS = {
    "vllm-router": ["vllm-router"],
    "smg": ["python", "-m", "smg", "launch"],
    "sglang-router": ["sglang-router", "launch"],
}
"""How each program is started, from the folder of the environment's programs."""

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


def metrics(program: str) -> list[str]:
    """The names of its metrics after requests that are answered, and one that finds no replica."""
    port, page = free_port(), free_port()
    first, *words = COMMANDS[program]
    addresses = ["--host", "127.0.0.1", "--port", str(port), "--prometheus-port", str(page)]
    fleet, [replica] = start_mocks(1, "--profile", "instant")
    child = Child([str(directory("peers") / "bin" / first), *words, *addresses, "--worker-urls", replica])
    try:
        ready = f"http://127.0.0.1:{port}/readiness"
        child.require(lambda: answers(ready), what=program)
        ask(port, BODY)
        ask(port, BODY.replace(b"{", b'{"stream": true, ', 1))
        fleet.stop()
        ask(port, BODY)
        text = eventually(lambda: get(f"http://127.0.0.1:{page}/metrics").decode(), what="metrics")
    finally:
        child.stop()
        fleet.stop()
    return sorted(set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE)))


def ask(port: int, body: bytes) -> None:
    """One request; its answer may be an error."""
    asked = urllib.request.Request(f"http://127.0.0.1:{port}/v1/chat/completions", body)
    asked.add_header("Content-Type", "application/json")
    with suppress(urllib.error.HTTPError), urllib.request.urlopen(asked, timeout=60) as answer:
        answer.read()


def main() -> None:
    """Writes what the programs say."""
    known = json.loads(PAGE.read_text())
    for program, (package, _) in PARSERS.items():
        entry = {"version": version("peers", package), "flags": flags(program)}
        if program in COMMANDS:
            entry["metrics"] = metrics(program)
        known[program] = entry
    PAGE.write_text(json.dumps(known, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
