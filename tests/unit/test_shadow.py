"""The shadow policy's metrics."""

from skylb import shadow


def samples(policy: str | None, counters: dict[str, int]) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in shadow.families(policy, counters)
        for sample in family.samples
        if sample.name.endswith("_total")
    }


def test_each_verdict_is_a_series_and_times_are_in_seconds() -> None:
    counters = {"shadow_same": 7, "shadow_other": 2, "shadow_sooner_ns": 1_500_000_000, "pushed": 9}
    assert samples("ring", counters) == {
        ("skylb_shadow_choices_total", "ring", "same"): 7,
        ("skylb_shadow_choices_total", "ring", "other"): 2,
        ("skylb_shadow_choices_total", "ring", "waits"): 0,
        ("skylb_shadow_ttft_seconds_total", "ring", "sooner"): 1.5,
        ("skylb_shadow_ttft_seconds_total", "ring", "later"): 0,
    }
    assert counters == {"pushed": 9}


def test_without_a_shadow_nothing_is_shown() -> None:
    counters = {"shadow_same": 0, "pushed": 9}
    assert samples(None, counters) == {}
    assert counters == {"pushed": 9}
