"""Receipts of real balancers: their sums, their choices, what operators read, and what rehearsals say."""

import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support import recompute
from tests.support.processes import PATIENCE_S, SKYLB, Balancer, balancer, eventually, get, mocks
from tests.support.regions import regions

ENGINE = ("--profile", "l4-8b", "--time-scale", "0.1", "--max-num-seqs", "3")
SECRET = "the-prompt-is-a-secret"


def post(url: str, body: object, headers: dict[str, str] | None = None) -> tuple[int, dict[str, str], bytes]:
    """A POST of JSON: status, headers, body."""
    fields = {"Content-Type": "application/json", **(headers or {})}
    request = urllib.request.Request(url, json.dumps(body).encode(), fields, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            return answer.status, dict(answer.headers), answer.read()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers), error.read()


def chat(number: int) -> dict[str, Any]:
    """A request of one of seven conversations, which share their beginnings."""
    user = number % 7
    text = f"{SECRET} of user {user}. " * 40
    return {
        "model": "mock",
        "messages": [{"role": "user", "content": f"{text} {'more ' * (number // 7)}"}],
        "max_tokens": 8,
        "stream": True,
        "user": f"user-{user}",
    }


def send(front: Balancer, count: int) -> None:
    """So many requests, eight at a time."""

    def one(number: int) -> int:
        url = f"{front.url}/v1/chat/completions"
        return post(url, chat(number), {"X-Request-Id": f"r-{number}"})[0]

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(one, range(count))) == {200}


def receipt(front: Balancer, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(get(f"{front.admin}/requests/{name}"))
    return found


def listing(front: Balancer, query: str = "") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(get(f"{front.admin}/requests{query}"))
    return found


def refused(url: str) -> tuple[int, str, str]:
    """Status, code and message of a GET that is refused."""
    with pytest.raises(urllib.error.HTTPError) as raised:
        get(url)
    error = json.loads(raised.value.read())["error"]
    return raised.value.code, error["code"], error["message"]


def why(front: Balancer, *words: str) -> str:
    """What ``skylb why`` prints."""
    command = [*SKYLB, "why", *words, "--admin", f"127.0.0.1:{front.admin_port}"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE_S).stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["--policy", "predictive", "--engine-explore-ratio", "0.3"],
        ["--policy", "predictive", "--engine-affinity-wait-s", "0"],
        ["--policy", "prefix"],
        ["--policy", "llm_d"],
        ["--policy", "round_robin"],
    ],
    ids=lambda arguments: "-".join(arguments[1::2]),
)
def test_every_receipt_agrees_with_a_script_that_does_its_sums_again(
    arguments: Sequence[str], tmp_path: Path
) -> None:
    with mocks(3, *ENGINE) as urls, balancer(*urls, arguments=["--receipts", "500", *arguments]) as front:
        send(front, 60)
        eventually(
            lambda: listing(front)["kept"] == 60 and all(r["over"] for r in listing(front)["requests"])
        )
        receipts = [receipt(front, f"r-{number}") for number in range(60)]
        policy = front.state()["process"]["policy"]
    text = json.dumps(receipts)
    assert SECRET not in text
    assert "user-3" not in text
    paths = []
    for number, one in enumerate(receipts):
        assert list(recompute.faults(one)) == []
        path = tmp_path / f"{number}.json"
        path.write_text(json.dumps(one))
        paths.append(str(path))
    script = str(Path(recompute.__file__))
    told = subprocess.run([sys.executable, "-I", script, *paths], capture_output=True, text=True, check=False)
    assert (told.returncode, told.stdout) == (0, "60 receipts agree\n")
    for one in receipts:
        last = one["decisions"][-1]
        assert (last["result"], last["search"]["policy"]) == ("push", policy)
        assert last["replica"] in urls
        assert one["end"]["outcome"] == "ok"
        assert one["ttft_ns"] > 0
        assert one["session"]
    if policy == "predictive":
        assert any(len(one["decisions"][-1]["search"]["candidates"]) == 3 for one in receipts)
        assert any(one["end"]["cached_tokens"] for one in receipts) or all(
            one["end"]["cached_tokens"] is None for one in receipts
        )


def test_the_script_finds_a_sum_that_is_wrong() -> None:
    with mocks(2, *ENGINE) as urls, balancer(*urls, arguments=["--receipts", "8"]) as front:
        send(front, 1)
        one = receipt(front, "r-0")
    candidates = one["decisions"][0]["search"]["candidates"]
    candidates[0]["score"]["imposed_ns"] += 1
    assert len(list(recompute.faults(one))) == 1
    candidates[0]["score"]["imposed_ns"] -= 1
    names = {candidate["replica"] for candidate in candidates}
    one["decisions"][0]["replica"] = (names - {one["decisions"][0]["replica"]}).pop()
    assert len(list(recompute.faults(one))) == 1


def test_only_the_last_are_kept_and_the_answer_says_so() -> None:
    with mocks(2, *ENGINE) as urls, balancer(*urls, arguments=["--receipts", "5"]) as front:
        assert refused(f"{front.admin}/requests/r-0")[:2] == (404, "no_receipt")
        send(front, 9)
        found = listing(front)
        assert (found["kept"], found["kept_max"], found["dropped"]) == (5, 5, 4)
        assert len(listing(front, "?limit=2")["requests"]) == 2
        for limit in ("0", "1001", "-1", "", "x", "%C2%B2", "9" * 5000):
            status, code, message = refused(f"{front.admin}/requests?limit={limit}")
            assert (status, code) == (400, "bad_query"), limit
            assert message.startswith("limit '")
            assert message.endswith(": expected an integer from 1 to 1,000")
            assert len(message) < 100
        status, code, message = refused(f"{front.admin}/requests?limit=2&foo=1")
        assert (status, code, message) == (400, "bad_query", "foo: expected limit")
        status, code, message = refused(f"{front.admin}/requests/never")
        assert (status, code) == (404, "no_receipt")
        assert "5 of 5 are kept, the oldest from 20" in message
        name = found["requests"][0]["request_id"]
        text = why(front, name)
        assert text.startswith(f"Request {name} (/v1/chat/completions, model mock, class normal) came at")
        assert "pushed to 127.0.0.1:" in text
        assert "The first byte came" in text
        assert "It was answered" in text
        assert json.loads(why(front, name, "--json"))["request_id"] == name


def test_without_receipts_the_answer_says_how_to_have_them() -> None:
    with mocks(1, "--profile", "instant") as urls, balancer(*urls) as front:
        send(front, 1)
        status, code, message = refused(f"{front.admin}/requests/r-0")
        assert (status, code) == (404, "no_receipt")
        assert "--receipts" in message
        assert refused(f"{front.admin}/requests")[:2] == (404, "no_receipt")


def test_a_rehearsal_says_where_a_request_would_go_and_sends_nothing() -> None:
    quiet = ["--receipts", "8", "--engine-explore-ratio", "0"]
    with mocks(3, *ENGINE) as urls, balancer(*urls, arguments=quiet) as front:
        send(front, 1)
        pushed = receipt(front, "r-0")["decisions"][0]["replica"]
        before = front.state()["engine"]
        status, _, body = post(f"{front.admin}/route", chat(0))
        assert status == 200
        verdict = json.loads(body)
        assert (verdict["decision"]["result"], verdict["decision"]["replica"]) == ("push", pushed)
        assert verdict["decision"]["match_blocks"] > 0
        assert SECRET not in body.decode()
        after = front.state()["engine"]
        names = ("replica", "pushed_total", "in_flight", "tree_blocks", "match_blocks_total")
        rows = [[[row[name] for name in names] for row in of["replicas"]] for of in (before, after)]
        assert rows[0] == rows[1]
        assert listing(front)["kept"] == 1
        large = chat(0)
        large["messages"][0]["content"] = "word " * 200_000
        found = json.loads(post(f"{front.admin}/route?path=/v1/chat/completions&class=low", large)[2])
        assert (found["class"], found["decision"]["result"]) == ("low", "push")
        assert found["prompt_bytes"] > 1_000_000
        assert post(f"{front.admin}/route?path=/health", chat(0))[0] in {400, 404, 405}
        assert post(f"{front.admin}/route?color=red", chat(0))[0] == 400
        unknown = json.loads(post(f"{front.admin}/route", {**chat(0), "model": "none"})[2])
        assert unknown["decision"]["result"] in {"hold", "refuse"}
        assert post(f"{front.admin}/route", {"messages": 5})[0] == 400


def test_a_forward_has_a_receipt_at_both_balancers() -> None:
    arguments = ["--receipts", "200", "--engine-affinity-wait-s", "0"]
    with regions("us", "eu", replicas=1, mock=ENGINE, arguments=arguments) as found:
        us, eu = found["us"].front, found["eu"].front
        found["us"].verb("/regions/us/evacuate")
        send(us, 3)
        one = receipt(us, "r-1")
        last = one["decisions"][-1]
        assert (last["result"], last["peer"]) == ("forward", "eu")
        looked_at = last["peers"]["looked_at"][0]
        assert looked_at["peer"] == "eu"
        assert looked_at["rtt_ns"] > 0
        assert looked_at["room"] > 0
        text = why(us, "r-1")
        assert "forwarded to balancer eu" in text
        assert "skylb why r-1 --admin" in text
        there = receipt(eu, "r-1")
        assert (there["origin"], there["forwarded"]) == ("us", True)
        assert there["decisions"][-1]["result"] == "push"
        assert list(recompute.faults(one)) == list(recompute.faults(there)) == []


def test_a_trusted_proxy_reads_in_the_answer_where_its_request_went_and_nobody_else_does() -> None:
    with mocks(1, "--profile", "instant") as urls:
        trusted = ["--receipts", "8", "--trusted-proxies", "127.0.0.1"]
        with balancer(*urls, arguments=trusted) as front:
            headers = post(f"{front.url}/v1/chat/completions", chat(1), {"X-Request-Id": "r-1"})[1]
            words = dict(word.split("=", 1) for word in headers["X-SkyLB-Receipt"].split("; "))
            assert words.keys() == {"id", "replica", "match", "predicted", "held", "policy"}
            assert (words["id"], words["replica"], words["policy"]) == ("r-1", urls[0], "predictive")
        for arguments in (["--receipts", "8"], ["--trusted-proxies", "127.0.0.1"]):
            with balancer(*urls, arguments=arguments) as front:
                headers = post(f"{front.url}/v1/chat/completions", chat(1))[1]
                assert "x-skylb-receipt" not in {name.lower() for name in headers}
