"""What is shown of the shadow policy: how often its choices differ from the real ones, and how much."""

from collections.abc import Iterator, MutableMapping

from prometheus_client.core import CounterMetricFamily, Metric

_RESULTS = ("same", "other", "waits")
_DIRECTIONS = ("sooner", "later")


def families(policy: str | None, counters: MutableMapping[str, int]) -> Iterator[Metric]:
    """The shadow's metrics; none without a shadow.

    Args:
        policy: the shadow's policy.
        counters: the engine's. Those of the shadow are taken out.
    """
    choices = [(result, counters.pop(f"shadow_{result}", 0)) for result in _RESULTS]
    times_ns = [(direction, counters.pop(f"shadow_{direction}_ns", 0)) for direction in _DIRECTIONS]
    if policy is None:
        return
    family = CounterMetricFamily(
        "skylb_shadow_choices",
        "First pushes, by what the shadow policy chose: the same or another replica, or to wait for one.",
        labels=("policy", "result"),
    )
    for result, count in choices:
        family.add_metric((policy, result), count)
    yield family
    family = CounterMetricFamily(
        "skylb_shadow_ttft_seconds",
        "Time by which the first token was predicted sooner, or later, at the shadow's choices.",
        labels=("policy", "direction"),
    )
    for direction, time_ns in times_ns:
        family.add_metric((policy, direction), time_ns / 1e9)
    yield family
