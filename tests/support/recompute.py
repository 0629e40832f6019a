"""Recomputes the sums of receipts, and makes their choices again; needs the standard library alone.

``python tests/support/recompute.py FILE...`` reads receipts as ``GET /requests/ID`` writes them. It prints
what does not agree. All figures are integers, and have to be equal.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Json = dict[str, Any]

SUITS_BETTER = 8
"""A wait is worth at least one in so many parts of the work that it saves."""

OTHER_KIND = 2
"""A replica that takes so many times as long per token is of another kind."""


def faults(receipt: Json) -> Iterator[str]:
    """What does not agree in a receipt."""
    name = receipt["request_id"]
    for number, decision in enumerate(receipt["decisions"]):
        for fault in _faults_of(decision, receipt):
            yield f"{name}, decision {number}: {fault}"
    first_ns = receipt["first_byte_ns"]
    if first_ns is not None and receipt["ttft_ns"] != first_ns - receipt["submitted_ns"]:
        yield f"{name}: ttft_ns is {receipt['ttft_ns']}"


def _faults_of(decision: Json, receipt: Json) -> Iterator[str]:
    search, peers = decision["search"], decision["peers"]
    if search is not None:
        for candidate in search["candidates"]:
            yield from _sums(candidate, receipt["weights"])
        yield from _choices(search, receipt)
        if decision["result"] == "push" and decision["replica"] != search["chosen"]:
            yield f"it was pushed to {decision['replica']}, and {search['chosen']} was chosen"
    if peers is not None and peers["leaves"] is not None:
        yield from _left(peers, receipt["weights"])


def _sums(candidate: Json, weights: Json) -> Iterator[str]:
    """The sums of one candidate."""
    figures = candidate.get("figures")
    if figures is None:
        return
    ttft_ns = figures["start_in_ns"] + figures["uncached_tokens"] * figures["ns_per_token"]
    if ttft_ns != figures["ttft_ns"]:
        yield f"{candidate['replica']}: ttft_ns is {figures['ttft_ns']}, and should be {ttft_ns}"
    score = candidate.get("score")
    if score is not None:
        made = score_of(figures, weights)
        if made != score:
            yield f"{candidate['replica']}: the score is {score}, and should be {made}"


def score_of(figures: Json, weights: Json) -> Json:
    """The parts of the cost under ``predictive``."""
    compute_ns = float(figures["ns_per_token"] * figures["uncached_tokens"])
    again_ns = float(figures["ns_per_token"] * figures["evict_tokens"])
    running = compute_ns * float(figures["running"]) * weights["delay_weight"]
    queued = compute_ns * float(figures["pending"]) * weights["queue_weight"]
    evicted = again_ns * weights["evict_weight"]
    imposed_ns = int(running + queued + evicted)
    ttft_ns = figures["start_in_ns"] + figures["uncached_tokens"] * figures["ns_per_token"]
    return {
        "running_ns": int(running),
        "queued_ns": int(queued),
        "evicted_ns": int(evicted),
        "imposed_ns": imposed_ns,
        "total_ns": ttft_ns + imposed_ns,
    }


def _choices(search: Json, receipt: Json) -> Iterator[str]:
    """The choices of ``predictive`` and ``prefix``: that among all, and that among those with room."""
    candidates, chosen, preferred = search["candidates"], search["chosen"], search["preferred"]
    make = {"predictive": _predictive, "prefix": _prefix}.get(search["policy"])
    if chosen is None or make is None:
        return
    named = {candidate["replica"]: candidate for candidate in candidates}
    alone = search["candidates_left_out"] == 0
    if preferred is None:
        yield from make(candidates, chosen, search["basis"], search, receipt, alone)
    else:
        if named[preferred]["room"]:
            yield f"{preferred} is preferred without room, and has room"
        first = "time" if search["policy"] == "predictive" else None
        yield from make(candidates, preferred, first, search, receipt, alone)
        with_room = [candidate for candidate in candidates if candidate["room"]]
        yield from make(with_room, chosen, search["basis"], search, receipt, alone)
        waits = suits_better(named[preferred], named[chosen], receipt["prompt_blocks"])
        if waits != (search["found"] == "better_to_wait"):
            yield f"{preferred} is worth a wait: {waits}, and the search found {search['found']}"
    if not named[chosen]["room"]:
        yield f"{chosen} is chosen, and has no room"


def bearable(best_ns: int, weights: Json) -> int:
    """The highest cost that is as good as the best."""
    share = max(1.0 - weights["session_gain_ratio"], sys.float_info.min)
    return max(int(float(best_ns) / share), best_ns + weights["session_gain_ns"])


def _predictive(
    candidates: list[Json], chosen: str, basis: str | None, search: Json, receipt: Json, alone: bool
) -> Iterator[str]:
    weights = receipt["weights"]
    costs = {of["replica"]: score_of(of["figures"], weights)["total_ns"] for of in candidates}
    best_ns = min(costs.values())
    limit_ns = bearable(best_ns, weights)
    home = search["home"]
    if len(candidates) == 1 and alone:
        wanted = {candidates[0]["replica"]}
    elif basis == "explore":
        wanted = {of["replica"] for of in candidates if of["room"] and costs[of["replica"]] <= limit_ns}
    elif home in costs and costs[home] <= limit_ns:
        wanted = {home}
    else:
        wanted = {name for name, cost_ns in costs.items() if cost_ns == best_ns}
    if chosen not in wanted:
        yield f"{chosen} is chosen by {basis}, and should be one of {sorted(wanted)}: {costs}"


def _prefix(
    candidates: list[Json], chosen: str, basis: str | None, search: Json, receipt: Json, alone: bool
) -> Iterator[str]:
    del search
    longest = max(of["match_blocks"] for of in candidates)
    threshold = receipt["weights"]["match_threshold"] * float(receipt["prompt_blocks"])
    matches = longest > 0 and float(longest) > threshold
    pool = [of for of in candidates if of["match_blocks"] == longest] if matches else candidates
    least = min(of["in_flight"] for of in pool)
    wanted = {of["replica"] for of in pool if of["in_flight"] == least}
    if chosen not in wanted:
        yield f"{chosen} is chosen, and should be one of {sorted(wanted)}"
    expected = "only" if len(candidates) == 1 and alone else "match" if matches else "load"
    if basis not in {None, expected}:
        yield f"the choice rests on {basis}, and should rest on {expected}"


def suits_better(one: Json, other: Json, prompt_blocks: int) -> bool:
    """Whether a candidate without room is worth a wait."""

    def figure(of: Json, name: str) -> int:
        return int(of.get("figures", {}).get(name, 0))

    tokens = [figure(of, "uncached_tokens") for of in (one, other)]
    each = [figure(of, "ns_per_token") for of in (one, other)]
    if tokens == [0, 0]:
        mine, theirs = (max(0, prompt_blocks - of["match_blocks"]) for of in (one, other))
    elif max(each) // OTHER_KIND >= max(min(each), 1):
        mine, theirs = (token * ns for token, ns in zip(tokens, each, strict=True))
    else:
        mine, theirs = tokens
    return mine < theirs - theirs // SUITS_BETTER


def _left(peers: Json, weights: Json) -> Iterator[str]:
    """Whether the best peer is so much better than the replica here."""
    best = next(of for of in peers["looked_at"] if of["peer"] == peers["best"])
    here_ns = peers["here_ttft_ns"]
    gain_ns = max(0, here_ns - best["ttft_ns"]) if best["ttft_ns"] is not None else 0
    share = float(gain_ns) / float(max(here_ns, 1))
    leaves = gain_ns > weights["leave_gain_ns"] and share > weights["leave_gain_ratio"]
    if leaves != peers["leaves"]:
        yield f"leaves is {peers['leaves']}, and should be {leaves}"


def main(paths: list[str]) -> int:
    """Reads the files; 1 if something does not agree."""
    found = [fault for path in paths for fault in faults(json.loads(Path(path).read_text()))]
    print("\n".join(found) or f"{len(paths)} receipts agree")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
