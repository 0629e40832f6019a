"""Figures of the judge's runs."""

from pathlib import Path

import pytest

from bench.judge import paired
from bench.judge.cases import MADE, NAMES, TRACED_NAMES, cases, traced
from bench.judge.runs import (
    FAILED_E2E_S,
    FAILED_TTFT_S,
    LENGTHS,
    first_tokens,
    last_tokens,
    length_class,
    quantile,
    refused_by_length,
    share_within,
)
from bench.judge.variants import DEFAULT, GATED, POLICIES, SHIPPED, known, rivals
from skylb.tools.sim.result import Distribution, Records


def records(outcomes: list[str], ttft_s: list[float | None]) -> Records:
    count = len(outcomes)
    return Records(
        id=list(range(count)),
        sent_s=[0.0] * count,
        hold_s=[0.0] * count,
        ttft_s=ttft_s,
        e2e_s=[0.0] * count,
        replica=[0] * count,
        cached_tokens=[0] * count,
        attempts=[1] * count,
        outcome=outcomes,
    )


@pytest.mark.parametrize(
    ("tokens", "name"), [(1, "2k"), (1999, "2k"), (2000, "8k"), (7999, "8k"), (8000, "more")]
)
def test_a_prompt_belongs_to_one_class_of_length(tokens: int, name: str) -> None:
    assert length_class(tokens) == name


def test_refusals_are_counted_by_length_of_the_prompt() -> None:
    found = refused_by_length(
        records(["ok", "hold_timeout", "hold_timeout", "ok"], [0.1, None, None, 0.2]),
        {0: 100, 1: 3000, 2: 9000, 3: 9000},
    )
    assert {name: found[f"sent_{name}"] for name, _ in LENGTHS} == {"2k": 1, "8k": 1, "more": 2}
    assert {name: found[f"refused_{name}"] for name, _ in LENGTHS} == {"2k": 0, "8k": 1, "more": 1}


def test_a_refused_request_is_never_a_fast_one() -> None:
    found = list(first_tokens(records(["ok", "hold_timeout", "stream_cut"], [0.1, None, 0.1]), 0))
    assert found == [0.1, FAILED_TTFT_S, FAILED_TTFT_S]


def test_one_that_did_not_end_is_as_late_as_one_that_was_refused_and_none_is_later() -> None:
    some = records(["ok", "ok"], [0.1, 300.0])
    assert list(first_tokens(some, 1)) == [0.1, FAILED_TTFT_S, FAILED_TTFT_S]
    ends = list(last_tokens(some, 1))
    assert ends == [*(min(time_s, FAILED_E2E_S) for time_s in some.e2e_s), FAILED_E2E_S]


def test_quantiles_are_the_smallest_values_that_cover_their_share() -> None:
    ten = [float(number) for number in range(1, 11)]
    assert [quantile(ten, share) for share in (0.5, 0.9, 0.91, 0.99)] == [5.0, 9.0, 10.0, 10.0]
    assert quantile([7.0], 0.5) == 7.0
    assert quantile([], 0.5) is None


def test_the_share_within_a_bound_grows_inside_a_bucket() -> None:
    distribution = Distribution(count=100, histogram=[(0.1, 90), (0.202, 10)])
    assert share_within(distribution, 0.05) == 0.0
    assert share_within(distribution, 0.1) == pytest.approx(0.9)
    assert share_within(distribution, 0.15) == pytest.approx(0.9)
    assert share_within(distribution, 0.201) == pytest.approx(0.95)
    assert share_within(distribution, 0.3) == 1.0
    assert share_within(Distribution(), 0.3) is None


def test_every_policy_but_the_default_is_a_rival_in_both_forms() -> None:
    forms = {(variant.rule, variant.form) for variant in rivals()}
    for policy in POLICIES:
        assert ((policy, GATED) in forms) == ((policy, SHIPPED) in forms) == (policy != DEFAULT)
    blind = {variant.engine.get("push") for variant in rivals() if variant.form == SHIPPED}
    assert blind == {"blind"}


def test_settings_that_the_engine_does_not_know_are_left_out() -> None:
    assert known({"policy": "prefix", "allowance": "one"})
    assert not known({"allowance": "unheard of"})
    assert not known({"unheard_of": 1})


def test_cases_have_names_of_their_own() -> None:
    assert len(set(NAMES)) == len(NAMES)
    assert {case.name for case in MADE}.isdisjoint(TRACED_NAMES)
    with pytest.raises(KeyError):
        cases(["unheard_of"])


def test_without_trace_files_the_traced_cases_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.judge.cases.TRACES", tmp_path)
    found, reason = cases()
    assert [case.name for case in found] == [case.name for case in MADE]
    assert "trace_agent" in reason
    assert cases(["arena"])[1] == ""
    with pytest.raises(FileNotFoundError):
        cases(["arena"], tmp_path)


def test_traced_cases_have_the_names_that_are_listed(tmp_path: Path) -> None:
    for name in ("agent_even_b8", "chat_wildchatlike_b64", "chat_sharedsys_b64"):
        (tmp_path / f"{name}.jsonl.gz").touch()
    assert tuple(case.name for case in traced(tmp_path)) == TRACED_NAMES


def test_settings_are_read_as_numbers_words_and_truths() -> None:
    given = paired.settings(["queue_weight=1", "engine.policy=prefix", "class_from_body=true"])
    assert given == {"queue_weight": 1, "policy": "prefix", "class_from_body": True}
    with pytest.raises(ValueError, match="NAME=VALUE"):
        paired.settings(["queue_weight"])
    with pytest.raises(ValueError, match="does not know"):
        paired.settings(["unheard_of=1"])


def test_a_change_is_paired_by_seed() -> None:
    rows: paired.Rows = {
        ("arena", "85%", "base"): {1: {"ttft_p90_s": 1.0}, 2: {"ttft_p90_s": 3.0}, 3: {"ttft_p90_s": 9.0}},
        ("arena", "85%", "other"): {1: {"ttft_p90_s": 2.0}, 2: {"ttft_p90_s": 6.0}},
    }
    found = paired.compared(rows, "arena", "85%", ("base", "other"), "ttft_p90_s")
    assert found is not None
    assert (found.mean, found.low, found.high) == pytest.approx((1.0, 1.0, 1.0))
