"""``make test-dashboards``: a real Prometheus scrapes two regions; every panel and alert has to find data.

``PROMETHEUS`` names a directory with ``prometheus`` and ``promtool``; tests/dashboards/tools.sh makes one.
"""

import json
import math
import os
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.dashboards import queries
from tests.dashboards.stage import admins, stage, traffic
from tests.support.otlp import Receiver
from tests.support.processes import Child, answers, eventually, free_port

TOOLS = Path(os.environ.get("PROMETHEUS", ""))
INTERVAL = "30s"
PATIENCE_S = 120.0
EXEMPLARS = ("skylb_ttft_seconds", "skylb_request_seconds")
"""Histograms with exemplars."""


@contextmanager
def prometheus(targets: Sequence[str], directory: Path) -> Iterator[str]:
    """A Prometheus that scrapes these every second; its URL."""
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(queries.ALERTS)],
        "scrape_configs": [{"job_name": "skylb", "static_configs": [{"targets": list(targets)}]}],
    }
    path = directory / "prometheus.json"  # JSON is YAML
    path.write_text(json.dumps(config))
    address = f"127.0.0.1:{free_port()}"
    command = [str(TOOLS / "prometheus"), f"--config.file={path}", f"--web.listen-address={address}"]
    command.append("--enable-feature=exemplar-storage")
    child = Child([*command, f"--storage.tsdb.path={directory / 'data'}"])
    try:
        child.require(lambda: answers(f"http://{address}/-/ready"), timeout_s=30, what="prometheus")
        yield f"http://{address}"
    finally:
        child.stop()


def ask(url: str, expr: str) -> list[float]:
    """Values of an instant query that are numbers."""
    asked = urllib.parse.urlencode({"query": expr}).encode()
    with urllib.request.urlopen(f"{url}/api/v1/query", data=asked, timeout=10) as answer:
        said: dict[str, Any] = json.load(answer)
    result = said["data"]["result"]
    values = [result[1]] if said["data"]["resultType"] == "scalar" else [row["value"][1] for row in result]
    return [float(value) for value in values if not math.isnan(float(value))]


def traces(url: str, histogram: str) -> set[str]:
    """Traces of the exemplars that Prometheus has of a histogram.

    Raises:
        AssertionError: an exemplar is not in the bucket that has it.
    """
    words = {"query": f"{histogram}_bucket", "start": time.time() - 3600, "end": time.time() + 60}
    asked = f"{url}/api/v1/query_exemplars?{urllib.parse.urlencode(words)}"
    with urllib.request.urlopen(asked, timeout=10) as answer:
        said: dict[str, Any] = json.load(answer)
    found = set()
    for series in said["data"]:
        for exemplar in series["exemplars"]:
            assert float(exemplar["value"]) <= float(series["seriesLabels"]["le"]), series
            found.add(exemplar["labels"]["trace_id"])
    return found


def linked(url: str, collector: Receiver) -> bool:
    """Each histogram with exemplars has some, and the collector has the trace of each."""
    found = [traces(url, histogram) for histogram in EXEMPLARS]
    return all(found) and set().union(*found) <= {span.trace for span in collector.spans}


def check(*words: str) -> None:
    """Runs promtool.

    Raises:
        subprocess.CalledProcessError: it found a fault.
    """
    subprocess.run([str(TOOLS / "promtool"), *words], cwd=queries.ALERTS.parent, check=True, timeout=60)


def main() -> int:
    """Checks the rules, then every query; the status."""
    check("check", "rules", "alerts.yml")
    check("check", "config", "scrape.yml")
    check("test", "rules", "alerts_test.yml")
    wanted = {query.place + " | " + query.expr: query.expr for query in queries.panels(INTERVAL)}
    expected = len(wanted)
    for rule in queries.rules():
        wanted |= {f"{rule.place} reads | {selector}": selector for selector in rule.selectors}
    with tempfile.TemporaryDirectory(prefix="skylb-dashboards-") as name:
        directory = Path(name)
        with stage(directory, replicas=3) as (found, keys, collector), traffic(found, keys):
            with prometheus(admins(found), directory) as url:
                missing = dict(wanted)

                def all_found() -> bool:
                    for place, expr in list(missing.items()):
                        if ask(url, expr):
                            del missing[place]
                    return not missing

                with suppress(AssertionError):  # what is missing is named below
                    eventually(all_found, timeout_s=PATIENCE_S, what="data for every query")
                for rule in queries.rules():
                    ask(url, rule.expr)
                eventually(
                    lambda: linked(url, collector), timeout_s=PATIENCE_S, what="the traces of exemplars"
                )
                exemplars = {histogram: len(traces(url, histogram)) for histogram in EXEMPLARS}
    for place in missing:
        print(f"NO DATA: {place}")
    print(
        f"{expected} queries of panels, {len(queries.alerts())} alerts, {len(wanted) - expected} selectors:"
    )
    print(f"{len(wanted) - len(missing)} of {len(wanted)} have data")
    print("traces of exemplars: " + ", ".join(f"{count} of {name}" for name, count in exemplars.items()))
    return int(bool(missing))


if __name__ == "__main__":
    sys.exit(main())
