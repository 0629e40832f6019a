"""``skylb why``: one request's receipt in plain sentences."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from pydantic import Field

from skylb.settings.values import Expected
from skylb.tools.operate.ask import AdminSettings

OTHERS_MAX = 3
"""Alternatives that the text names; the receipt has more."""

HELD = {
    "no_room": "It was held: no replica had room.",
    "none_ready": "It was held: no replica here was ready for it.",
    "others_first": "It was held: requests that wait have the right to the room there is.",
    "leaves": "It was held until a peer has room: this region is evacuated.",
    "lists_are_read": "It was held until the replicas had told their models: its model was in no list.",
}

ENDS = {
    "ok": "It was answered",
    "client_left": "The client left",
    "given_up": "SkyLB gave it up, as it stopped or lacked descriptors",
    "replica_failed": "The replica failed",
}

Json = dict[str, Any]


class WhySettings(AdminSettings):
    """The request, and the balancer to ask."""

    request: Annotated[
        str,
        Expected("the id of a request: x-request-id of its answer"),
        Field(min_length=1, description="Id of the request: x-request-id of the request or of its answer."),
    ]
    json_: Annotated[
        bool,
        Expected("true or false"),
        Field(description="Print the whole receipt as JSON instead of a text."),
    ] = False


def render(receipt: Json) -> str:
    """The receipt as a paragraph."""
    sentences = [_asked(receipt)]
    decisions = receipt["decisions"]
    for position, decision in enumerate(decisions):
        before = decisions[position - 1] if position else None
        sentences += _decided(decision, before, receipt)
    if receipt["decisions_left_out"]:
        sentences.append(f"{receipt['decisions_left_out']} further decisions were not kept.")
    sentences += _came(receipt)
    return " ".join(sentences)


def _asked(receipt: Json) -> str:
    model = f"model {receipt['model']}" if receipt["model"] else "no model"
    parts = [receipt["route"], model, f"class {receipt['class']}"]
    if receipt["tenant"] is not None:
        parts.append(f"tenant {receipt['tenant']}")
    prompt = f"a prompt of {receipt['prompt_bytes']:,} bytes ({receipt['prompt_blocks']:,} blocks)"
    session = " It belongs to a session." if receipt["session"] else ""
    origin = f" from balancer {receipt['origin']}" if receipt["origin"] else ""
    came = f"Request {receipt['request_id']} ({', '.join(parts)}) came{origin}"
    return f"{came} at {receipt['submitted']} with {prompt}.{session}"


def _decided(decision: Json, before: Json | None, receipt: Json) -> Iterator[str]:
    """Sentences about one decision."""
    search, peers = decision["search"], decision["peers"]
    result = decision["result"]
    if result == "push":
        yield from _pushed(decision, before)
    elif result == "forward":
        yield _forwarded(decision)
    elif result == "hold":
        yield _held(decision)
    elif result == "refuse":
        yield f"It was refused: {decision['code']}."
    elif result == "expire":
        yield "It waited in the hold until its time was over."
    else:
        yield "The attempt was given up, because its replica was down or stood still."
    if search is not None:
        yield from _closed(search)
    if peers is not None and result != "forward":
        yield from _stayed(peers)
    if decision["failed"] is not None:
        yield _failed(decision)
    if result == "forward" and decision["peer"] is not None:
        name, request = decision["peer"], receipt["request_id"]
        yield f"Balancer {name} has its own receipt: skylb why {request} --admin ADMIN_ADDRESS_OF_{name}."


def _failed(decision: Json) -> str:
    """How an attempt failed: before its first byte, or as a stream that had begun."""
    if decision["first_byte_ns"] is None:
        return f"That attempt failed: {decision['failed']}."
    streamed = ms(decision["failed_ns"] - decision["first_byte_ns"])
    return f"It streamed for {streamed}, and was given up there: {decision['failed']}."


def _pushed(decision: Json, before: Json | None) -> Iterator[str]:
    replica, search = _name(decision["replica"]), decision["search"]
    when = "It was"
    if before is not None and before["result"] == "hold":
        when = f"After {ms(decision['at_ns'] - before['at_ns'])} in the hold it was"
    elif before is not None:
        when = "It was then"
    yield f"{when} pushed to {replica}{_because(search)}."
    if search is None:
        return
    chosen = _candidate(search, search["chosen"])
    if chosen is not None and "figures" in chosen:
        yield _reckoned(chosen)
    others = _alternatives(search)
    if others:
        yield others


def _because(search: Json | None) -> str:
    """Why this one, as the end of a sentence."""
    if search is None:
        return ""
    chosen = _candidate(search, search["chosen"])
    basis = search["basis"]
    if basis == "match" and chosen is not None:
        return f", which is believed to cache {chosen['match_blocks']:,} blocks of the prompt"
    if basis == "time":
        if search["home"] == search["chosen"] and _best(search) != search["chosen"]:
            return ", where its session was: to move would gain too little"
        return ", where its cost was lowest"
    reasons = {
        "key": ", to which its session's key leads",
        "load": ", which had the least load",
        "turn": ", whose turn it was",
        "only": ", the only one that could take it",
        "explore": ", which was drawn to learn its speed",
    }
    return reasons.get(basis, "")


def _reckoned(chosen: Json) -> str:
    figures, score = chosen["figures"], chosen.get("score")
    tokens, each_ns = figures["uncached_tokens"], figures["ns_per_token"]
    own = (
        f"There the first token was reckoned {ms(figures['ttft_ns'])} away: {ms(figures['start_in_ns'])} "
        f"until it could start, and {tokens:,} tokens to compute at {each_ns / 1e3:,.0f} us each"
    )
    if score is None:
        return f"{own}."
    return f"{own}; other requests lose {ms(score['imposed_ns'])} by it (weighed)."


def _alternatives(search: Json) -> str:
    others = [of for of in search["candidates"] if of["replica"] != search["chosen"]]
    others.sort(key=_cost)
    named = [f"{_name(of['replica'])} {_priced(of)}" for of in others[:OTHERS_MAX]]
    more = len(others) - len(named) + search["candidates_left_out"]
    if not named:
        return ""
    tail = f", and {more:,} more" if more else ""
    return f"Alternatives: {', '.join(named)}{tail}."


def _cost(candidate: Json) -> tuple[int, int]:
    if "score" in candidate:
        return candidate["score"]["total_ns"], 0
    if "figures" in candidate:
        return candidate["figures"]["ttft_ns"], 0
    return -candidate["match_blocks"], candidate["in_flight"]


def _priced(candidate: Json) -> str:
    if "score" in candidate:
        price = f"would have cost {ms(candidate['score']['total_ns'])}"
    elif "figures" in candidate:
        price = f"had a first token {ms(candidate['figures']['ttft_ns'])} away"
    else:
        price = f"had {candidate['match_blocks']:,} blocks and {candidate['in_flight']:,} requests in flight"
    return price if candidate["room"] else f"{price} and no room ({candidate['closed']})"


def _best(search: Json) -> str | None:
    open_to = [of for of in search["candidates"] if of["room"] or search["preferred"] is None]
    best = min(open_to, key=_cost, default=None)
    return best["replica"] if best is not None else None


def _closed(search: Json) -> Iterator[str]:
    closed = search["closed"]
    if not closed:
        return
    named = [f"{_name(of['replica'])} ({of['why']})" for of in closed[:OTHERS_MAX]]
    more = len(closed) - len(named) + search["closed_left_out"]
    tail = f" and {more:,} more" if more else ""
    yield f"Closed to it: {', '.join(named)}{tail}."


def _held(decision: Json) -> str:
    search = decision["search"]
    if decision["why"] == "better_to_wait" and search is not None:
        return (
            f"It was held: {_name(search['preferred'])} has no room. To wait for it is better than to take "
            f"{_name(search['chosen'])}, which has room."
        )
    return HELD.get(decision["why"], "It was held.")


def _forwarded(decision: Json) -> str:
    peers = decision["peers"]
    there = _name(decision["peer"])
    found = next((of for of in _looked_at(peers) if of["peer"] == decision["peer"]), None)
    if found is None:
        return f"It was forwarded to balancer {there}."
    way = (
        f"a round trip of {ms(found['rtt_ns'])}"
        if found["rtt_ns"] is not None
        else "a round trip not measured"
    )
    text = f"It was forwarded to balancer {there}, {way} away, which granted room for {found['room']:,}"
    if found["ttft_ns"] is None:
        return f"{text}."
    here = peers["here_ttft_ns"]
    if here is not None:
        against = f", against {ms(here)} here"
    elif decision["search"] is None:
        against = ", and requests leave this region: it is evacuated"
    else:
        against = ", and no replica here had room"
    return f"{text}. Its first token was reckoned {ms(found['ttft_ns'])} away{against}."


def _stayed(peers: Json) -> Iterator[str]:
    """Why it did not leave."""
    notes = []
    for of in _looked_at(peers)[:OTHERS_MAX]:
        if of["closed"] is not None:
            notes.append(f"{_name(of['peer'])} ({of['closed']})")
        elif of["ttft_ns"] is not None:
            notes.append(f"{_name(of['peer'])} (first token {ms(of['ttft_ns'])} away)")
        else:
            notes.append(f"{_name(of['peer'])} (room for {of['room']:,})")
    if notes:
        yield f"Other balancers were looked at and not taken: {', '.join(notes)}."


def _looked_at(peers: Json | None) -> list[Json]:
    looked_at: list[Json] = peers["looked_at"] if peers is not None else []
    return looked_at


def _came(receipt: Json) -> Iterator[str]:
    """What came of it."""
    decisions: Sequence[Json] = receipt["decisions"]
    last = decisions[-1] if decisions else None
    first_ns, end = receipt["first_byte_ns"], receipt["end"]
    if first_ns is not None and last is not None:
        took_ns = first_ns - last["at_ns"]
        text = f"The first byte came {ms(took_ns)} later"
        predicted_ns = last["predicted_ttft_ns"]
        if predicted_ns is not None:
            text += f", where {ms(predicted_ns)} were predicted"
        held = f", {ms(receipt['held_ns'])} in the hold included" if receipt["held_ns"] else ""
        yield f"{text}: {ms(receipt['ttft_ns'])} after the request{held}."
    if end is None:
        if last is None or last["result"] not in {"refuse", "expire"}:
            yield "It has not ended."
        return
    prompt, cached = end["prompt_tokens"], end["cached_tokens"]
    if prompt is not None and cached is not None:
        yield f"The engine reported {cached:,} of {prompt:,} prompt tokens cached."
    how = ENDS.get(end["outcome"], "It ended")
    status = end.get("status")
    if status is not None and status >= 400:
        how = f"{how} with status {status}" if end["outcome"] == "ok" else f"{how} (status {status})"
    yield f"{how}, {ms(end['at_ns'] - receipt['submitted_ns'])} after it came."


def _candidate(search: Json, name: str | None) -> Json | None:
    return next((of for of in search["candidates"] if of["replica"] == name), None)


def _name(name: str | None) -> str:
    """A replica's or balancer's name; it may have left since."""
    return name.removeprefix("http://") if name is not None else "one that has left"


def ms(time_ns: int) -> str:
    """A length of time, as people read it."""
    if time_ns >= 10_000_000_000:
        return f"{time_ns / 1e9:.1f} s"
    if time_ns >= 10_000_000:
        return f"{time_ns / 1e6:,.0f} ms"
    return f"{time_ns / 1e6:.1f} ms"
