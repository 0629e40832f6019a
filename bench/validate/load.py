"""``skylb load`` against AIPerf: the same requests, in the same order, to the same mock replicas.

    python -m bench.validate.load [--repeats 4] [--requests 240] [--users 16] [--time-scale 0.5]
        [--write]

A whole run renews the results; one with other sizes or fewer repeats prints, unless ``--write`` is given.

Both send the very same bodies (AIPerf replays them, `raw-payload`) in a closed loop, directly to the
replicas, each URL in turn. The replicas forget their caches before each run, and the two alternate. Compared
are throughput, from the first request to the last answer, and latencies. AIPerf wants a tokenizer although
it replays: it gets one of single characters, made here, and counts tokens as the replicas report them.
"""

import argparse
import json
import sys
import tempfile
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import msgspec

from bench import environments
from bench.processes import PROXY_CPU, Process, heed_stops, replicas, rest_cpus
from bench.record import keep
from skylb.tools.load.generate import generate
from skylb.tools.load.messages import Renderer
from skylb.tools.load.settings import SyntheticSettings
from skylb.tools.load.turn import Turn
from skylb.tools.text import table

MODEL = "mock"
REPLICAS = 2
PROFILE = "l4-8b"
REPEATS = 4
"""An even number: each of the two begins as often as the other."""

RUN_TIMEOUT_S = 600.0
NOWHERE = "http://127.0.0.1:9"
"""Where AIPerf looks for models: nothing leaves this machine."""

TARGETS = {"requests/s": 0.05, "output tokens/s": 0.05, "TTFT P50 ms": 0.10}
"""By how much the two may differ."""

Figures = dict[str, float]


def workload(requests: int, seed: int) -> list[Turn]:
    """Conversations of one message each, whose users share four system prompts."""
    settings = SyntheticSettings(
        users=requests, sessions=1, turns=1.0, user_tokens=200, answer_tokens=64, think_s=0.0, seed=seed
    )
    return generate(settings)


def payloads(turns: Sequence[Turn]) -> bytes:
    """The bodies that ``skylb load`` sends for these requests, one a line."""
    renderer = Renderer(turns)
    return b"".join(
        msgspec.json.encode(
            {
                "model": MODEL,
                "max_tokens": max(1, turn.out_tokens),
                "user": f"user-{turn.user}",
                "temperature": 0.0,
                "ignore_eos": True,
                "stream": True,
                "messages": renderer.messages(turn),
                "stream_options": {"include_usage": True},
            }
        )
        + b"\n"
        for turn in turns
    )


def tokenizer(directory: Path) -> Path:
    """A tokenizer of single characters, in the form of the ``tokenizers`` library."""
    vocabulary = {"<unk>": 0} | {chr(code): code - 32 for code in range(33, 127)}
    model = {"type": "BPE", "unk_token": "<unk>", "vocab": vocabulary, "merges": []}
    (directory / "tokenizer.json").write_text(
        json.dumps({"version": "1.0", "added_tokens": [], "model": model})
    )
    kind = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>", "model_max_length": 131_072}
    (directory / "tokenizer_config.json").write_text(json.dumps(kind))
    return directory


def aiperf_command(urls: Sequence[str], users: int, requests: int, scratch: Path) -> list[str]:
    """AIPerf, replaying ``payloads.jsonl``."""
    command = [str(environments.directory("load") / "bin" / "aiperf"), "profile", "--model", MODEL]
    command += [part for url in urls for part in ("--url", url)]
    command += ["--endpoint-type", "chat", "--streaming", "--use-server-token-count"]
    command += ["--concurrency", str(users), "--request-count", str(requests)]
    command += ["--input-file", str(scratch / "payloads.jsonl"), "--custom-dataset-type", "raw-payload"]
    command += ["--dataset-sampling-strategy", "sequential", "--tokenizer", str(scratch)]
    command += ["--no-server-metrics", "--no-gpu-telemetry", "--ui", "none", "--export-level", "summary"]
    command += ["--workers-max", "1", "--record-processors", "1"]
    return [*command, "--artifact-dir", str(scratch / "aiperf")]


def load_command(urls: Sequence[str], users: int, scratch: Path) -> list[str]:
    """``skylb load``, sending ``workload.jsonl``."""
    command = [sys.executable, "-m", "skylb", "load", "--model", MODEL, "--progress", "off"]
    command += [part for url in urls for part in ("--target", url)]
    command += ["--workload", str(scratch / "workload.jsonl"), "--concurrency", str(users)]
    return [*command, "--json-file", str(scratch / "report.json")]


def of_aiperf(said: Mapping[str, Any]) -> Figures:
    """The figures of ``profile_export_aiperf.json``.

    Raises:
        RuntimeError: a request failed.
    """
    if said.get("error_summary"):
        raise RuntimeError(f"AIPerf: {said['error_summary']}")
    return {
        "requests": said["request_count"]["avg"],
        "requests/s": said["request_throughput"]["avg"],
        "output tokens/s": said["output_token_throughput"]["avg"],
        "TTFT P50 ms": said["time_to_first_token"]["p50"],
        "TTFT P90 ms": said["time_to_first_token"]["p90"],
        "E2E P50 ms": said["request_latency"]["p50"],
        "E2E P90 ms": said["request_latency"]["p90"],
    }


def of_load(report: Mapping[str, Any]) -> Figures:
    """The same of a report of ``skylb load``.

    Raises:
        RuntimeError: a request failed.
    """
    total = report["total"]
    if total["failed"]:
        raise RuntimeError(f"skylb load: {total['errors']}")
    return {
        "requests": total["ok"],
        "requests/s": total["requests_per_s"],
        "output tokens/s": total["output_tokens_per_s"],
        "TTFT P50 ms": total["ttft_s"]["p50"] * 1e3,
        "TTFT P90 ms": total["ttft_s"]["p90"] * 1e3,
        "E2E P50 ms": total["e2e_s"]["p50"] * 1e3,
        "E2E P90 ms": total["e2e_s"]["p90"] * 1e3,
    }


def rows(own: Sequence[Figures], other: Sequence[Figures]) -> list[list[str]]:
    """Means of both, by how much ours is off, and the aim."""
    found = []
    for name in own[0]:
        mine, theirs = (fmean(run[name] for run in runs) for runs in (own, other))
        off = mine / theirs - 1
        aim = TARGETS.get(name)
        verdict = "" if aim is None else f"{aim:.0%}: {'met' if abs(off) <= aim else 'missed'}"
        found.append([name, f"{mine:.2f}", f"{theirs:.2f}", f"{off:+.1%}", verdict])
    return found


def run(command: Sequence[str], log: Path) -> None:
    """Runs a load generator to its end, not on the replicas' CPU.

    Raises:
        RuntimeError: it failed; with the last lines it wrote.
    """
    variables = {"HF_ENDPOINT": NOWHERE, "HF_HUB_DISABLE_TELEMETRY": "1"}
    process = Process(Path(command[0]).name, list(command), rest_cpus(), log, variables)
    process.start()
    try:
        status = process.wait(RUN_TIMEOUT_S)
    finally:
        process.stop()
    if status:
        raise RuntimeError(f"{process.name}: status {status}\n{process.tail()}")


def forget(urls: Sequence[str]) -> None:
    """Empties the replicas' caches."""
    for url in urls:
        urllib.request.urlopen(f"{url}/reset_prefix_cache", data=b"", timeout=10).close()


def both(urls: Sequence[str], options: argparse.Namespace, seed: int) -> tuple[Figures, Figures]:
    """One run of each; each begins in turn."""
    with tempfile.TemporaryDirectory(prefix="skylb-validate-load-") as directory:
        scratch = tokenizer(Path(directory))
        turns = workload(options.requests, seed)
        (scratch / "payloads.jsonl").write_bytes(payloads(turns))
        (scratch / "workload.jsonl").write_bytes(b"\n".join(map(msgspec.json.encode, turns)))
        commands = {
            "load": load_command(urls, options.users, scratch),
            "aiperf": aiperf_command(urls, options.users, options.requests, scratch),
        }
        for name in sorted(commands, reverse=seed % 2 == 1):
            forget(urls)
            run(commands[name], scratch / f"{name}.log")
        report = json.loads((scratch / "report.json").read_text())
        said = json.loads((scratch / "aiperf" / "profile_export_aiperf.json").read_text())
    return of_load(report), of_aiperf(said)


def main() -> None:
    """Compares, prints, stores."""
    parser = argparse.ArgumentParser(
        prog="bench.validate.load", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--requests", type=int, default=240)
    parser.add_argument("--users", type=int, default=16)
    parser.add_argument("--time-scale", type=float, default=0.5)
    parser.add_argument("--write", action="store_true", help="renew bench/results, whole or not")
    options = parser.parse_args()
    sizes = ("requests", "users", "time_scale")
    whole = options.repeats >= REPEATS and all(
        getattr(options, name) == parser.get_default(name) for name in sizes
    )
    heed_stops()
    mock = ["skylb", "mock", "--listen", "127.0.0.1:0", "--count", str(REPLICAS), "--model", MODEL]
    mock += ["--profile", PROFILE, "--time-scale", str(options.time_scale), "--keep-alive-s", "600"]
    own, other = [], []
    with replicas(mock, REPLICAS, frozenset({PROXY_CPU})) as urls:
        for seed in range(1, options.repeats + 1):
            mine, theirs = both(urls, options, seed)
            own.append(mine)
            other.append(theirs)
            print(f"{seed} of {options.repeats}", flush=True)
    version = environments.version("load", "aiperf")
    columns = ("", "skylb load", f"AIPerf {version}", "off", "aim")
    lines = [
        *table(columns, rows(own, other), left=1),
        "",
        (
            f"means of {options.repeats} runs of each, alternating: {options.requests} requests by "
            f"{options.users} users at once to {REPLICAS} mock replicas ({PROFILE}, time scale "
            f"{options.time_scale:g})"
        ),
    ]
    print("\n".join(lines))
    if whole or options.write:
        keep("validate-load", lines)


if __name__ == "__main__":
    main()
