"""What `make validate-load` sends and how it compares."""

import json
from pathlib import Path

import pytest

from bench.validate.load import of_aiperf, of_load, payloads, rows, tokenizer, workload
from skylb.tools.synthetic import split_directive


def test_both_load_generators_get_the_same_requests() -> None:
    turns = workload(12, seed=1)
    bodies = [json.loads(line) for line in payloads(turns).splitlines()]
    assert len(turns) == len(bodies) == len({turn.user for turn in turns}) == 12
    for turn, body in zip(turns, bodies, strict=True):
        texts = [split_directive(message["content"])[0] for message in body["messages"]]
        assert sum(map(len, texts)) == 4 * turn.in_tokens
        assert body["max_tokens"] == turn.out_tokens
        assert turn.after is None


def test_the_tokenizer_knows_every_printable_character(tmp_path: Path) -> None:
    vocabulary = json.loads((tokenizer(tmp_path) / "tokenizer.json").read_text())["model"]["vocab"]
    assert {chr(code) for code in range(33, 127)} <= vocabulary.keys()
    assert sorted(vocabulary.values()) == list(range(len(vocabulary)))


SAID = {
    "request_count": {"avg": 60.0},
    "request_throughput": {"avg": 4.0},
    "output_token_throughput": {"avg": 200.0},
    "time_to_first_token": {"p50": 100.0, "p90": 200.0},
    "request_latency": {"p50": 1000.0, "p90": 2000.0},
}
QUANTILES = {"p50": 0.12, "p90": 0.2}
REPORT = {
    "total": {
        "ok": 60,
        "failed": 0,
        "errors": {},
        "requests_per_s": 4.1,
        "output_tokens_per_s": 205.0,
        "ttft_s": QUANTILES,
        "e2e_s": QUANTILES,
    }
}


def test_aims_are_met_or_missed_by_the_means() -> None:
    found = {row[0]: row for row in rows([of_load(REPORT)], [of_aiperf(SAID)])}
    assert found["requests/s"][3:] == ["+2.5%", "5%: met"]
    assert found["TTFT P50 ms"][3:] == ["+20.0%", "10%: missed"]
    assert found["E2E P50 ms"][4] == ""


def test_a_failed_request_ends_the_comparison() -> None:
    with pytest.raises(RuntimeError, match="http_503"):
        of_load({"total": REPORT["total"] | {"failed": 1, "errors": {"http_503": 1}}})
    with pytest.raises(RuntimeError, match="refused"):
        of_aiperf(SAID | {"error_summary": ["refused"]})
