"""The mesh for operators: rows of ``skylb peers``, and the metrics ``skylb_peer_*``."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from skylb._core import PeerGauges
from skylb.mesh.link import Link, State
from skylb.mesh.signing import REASONS


def row(link: Link, gauges: PeerGauges, *, adopted: int) -> dict[str, Any]:
    """One peer as JSON; times are seconds."""
    meter = link.meter
    return {
        "peer": link.name,
        "region": link.region or None,
        "state": "isolated" if gauges.isolated else link.state.name.lower(),
        "fault": link.fault or None,
        "available": gauges.available,
        "draining": gauges.draining,
        "rtt_s": _seconds(gauges.rtt_ns),
        "jitter_s": _seconds(gauges.jitter_ns),
        "age_s": _seconds(gauges.age_ns),
        "clock_skew_s": round(link.skew_s, 3),
        "room": gauges.room,
        "granted": gauges.granted,
        "hold": gauges.hold_requests,
        "in_flight": gauges.in_flight,
        "forwards_out": gauges.forwarded_total,
        "forwards_in": gauges.arrived_total,
        "digest": {
            "prefixes": gauges.digest_prefixes,
            "age_s": _seconds(gauges.digest_age_ns),
            "hits": gauges.digest_hits_total,
            "tokens": gauges.digest_tokens_total,
            "tokens_found": gauges.digest_tokens_found_total,
            "bytes_in": meter.digest_bytes_in,
            "bytes_out": meter.digest_bytes_out,
            "fault": link.digest_fault or None,
        },
        "bytes_in": meter.bytes_in,
        "bytes_out": meter.bytes_out,
        "refused": dict(meter.refused),
        "passed_over": meter.passed_over,
        "replicas": len(link.news.replicas),
        "adopted": adopted,
    }


def _seconds(time_ns: int | None) -> float | None:
    return None if time_ns is None else round(time_ns / 1e9, 6)


_GAUGES: tuple[tuple[str, str, Callable[[PeerGauges], float | None]], ...] = (
    ("rtt_seconds", "Median round trip.", lambda g: None if g.rtt_ns is None else g.rtt_ns / 1e9),
    ("jitter_seconds", "Deviation of the round trips.", lambda g: g.jitter_ns / 1e9),
    (
        "age_seconds",
        "Since it last reported its state.",
        lambda g: None if g.age_ns is None else g.age_ns / 1e9,
    ),
    ("room", "Requests that may be forwarded to it now.", lambda g: g.room),
    ("granted", "Requests that it may forward to here.", lambda g: g.granted),
    ("hold_requests", "Requests in its hold, as it said.", lambda g: g.hold_requests),
    ("in_flight", "Forwards to it that have not ended.", lambda g: g.in_flight),
    ("available", "Forwards may go there.", lambda g: g.available),
    ("digest_prefixes", "Hot prefixes that it reported and that count.", lambda g: g.digest_prefixes),
    (
        "digest_age_seconds",
        "Since it last reported its hot prefixes.",
        lambda g: None if g.digest_age_ns is None else g.digest_age_ns / 1e9,
    ),
)

_OUTCOMES: tuple[tuple[str, Callable[[PeerGauges], int]], ...] = (
    ("ok", lambda g: g.ok_total),
    ("refused", lambda g: g.refused_total),
    ("failed", lambda g: g.failed_total),
    ("client_left", lambda g: g.client_left_total),
)


def families(
    links: Mapping[str, Link],
    all_gauges: list[PeerGauges],
    refused_by_reason: Mapping[str, int],
    forwards_refused: Mapping[str, int],
) -> Iterator[Metric]:
    """All families; labels are configured names and words of the code.

    Args:
        links: by name.
        all_gauges: the engine's figures.
        refused_by_reason: sync connections that belong to no peer and were refused, by reason.
        forwards_refused: forwards refused by their signature, by reason.
    """
    for name, text, value in _GAUGES:
        gauge = GaugeMetricFamily(f"skylb_peer_{name}", text, labels=("peer",))
        for gauges in all_gauges:
            found = value(gauges)
            if found is not None:
                gauge.add_metric((gauges.name,), found)
        yield gauge
    yield from _states(links)
    yield from _sync(links, refused_by_reason)
    yield from _digests(links, all_gauges)
    forwards = CounterMetricFamily(
        "skylb_forwards", "Forwards to peers that ended.", labels=("peer", "outcome")
    )
    arrived = CounterMetricFamily("skylb_forwards_arrived", "Forwards accepted from peers.", labels=("peer",))
    for gauges in all_gauges:
        arrived.add_metric((gauges.name,), gauges.arrived_total)
        for outcome, total in _OUTCOMES:
            forwards.add_metric((gauges.name, outcome), total(gauges))
    yield forwards
    yield arrived
    refused = CounterMetricFamily(
        "skylb_forwards_turned_away", "Forwards whose signature was not accepted.", labels=("reason",)
    )
    # All from the start: Prometheus misses the first event of a series that begins with it.
    for reason in REASONS:
        refused.add_metric((reason,), forwards_refused.get(reason, 0))
    yield refused


def _states(links: Mapping[str, Link]) -> Iterator[Metric]:
    family = GaugeMetricFamily("skylb_peer_state", "1 for the state it is in.", labels=("peer", "state"))
    for link in links.values():
        for state in State:
            family.add_metric((link.name, state.name.lower()), link.state is state)
    yield family


def _digests(links: Mapping[str, Link], all_gauges: list[PeerGauges]) -> Iterator[Metric]:
    """What peers report of hot prefixes, and whether it was true."""
    moved = CounterMetricFamily(
        "skylb_peer_digest_bytes", "Bytes of digests of hot prefixes.", labels=("peer", "direction")
    )
    for link in links.values():
        moved.add_metric((link.name, "in"), link.meter.digest_bytes_in)
        moved.add_metric((link.name, "out"), link.meter.digest_bytes_out)
    hits = CounterMetricFamily(
        "skylb_peer_digest_hits", "Forwards to it chosen by its hot prefixes.", labels=("peer",)
    )
    tokens = CounterMetricFamily(
        "skylb_peer_digest_tokens",
        "Of those whose answers had cached_tokens: tokens it should have cached, and those it had.",
        labels=("peer", "kind"),
    )
    for gauges in all_gauges:
        hits.add_metric((gauges.name,), gauges.digest_hits_total)
        tokens.add_metric((gauges.name, "told"), gauges.digest_tokens_total)
        tokens.add_metric((gauges.name, "found"), gauges.digest_tokens_found_total)
    yield from (moved, hits, tokens)


def _sync(links: Mapping[str, Link], refused_by_reason: Mapping[str, int]) -> Iterator[Metric]:
    moved = CounterMetricFamily("skylb_peer_bytes", "Bytes of peer sync.", labels=("peer", "direction"))
    messages = CounterMetricFamily(
        "skylb_peer_messages", "Messages of peer sync.", labels=("peer", "direction")
    )
    refused = CounterMetricFamily(
        "skylb_peer_refused", "Messages of peer sync that were not accepted.", labels=("peer", "reason")
    )
    passed_over = CounterMetricFamily(
        "skylb_peer_passed_over", "Messages of kinds that a later version has added.", labels=("peer",)
    )
    for link in links.values():
        meter = link.meter
        passed_over.add_metric((link.name,), meter.passed_over)
        moved.add_metric((link.name, "in"), meter.bytes_in)
        moved.add_metric((link.name, "out"), meter.bytes_out)
        messages.add_metric((link.name, "in"), meter.messages_in)
        messages.add_metric((link.name, "out"), meter.messages_out)
        for reason, count in sorted(meter.refused.items()):
            refused.add_metric((link.name, reason), count)
    for reason, count in sorted(refused_by_reason.items()):
        refused.add_metric(("unknown", reason), count)
    yield from (moved, messages, refused, passed_over)
