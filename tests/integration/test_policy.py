"""The policy of a balancer that runs is changed over its admin listener."""

import json
import signal
import urllib.error
import urllib.request
from typing import Any

from tests.support.processes import Balancer, balancer, eventually, mocks, sample_sum

REPLICAS = 4


def put_policy(front: Balancer, body: bytes) -> tuple[int, dict[str, Any]]:
    asked = urllib.request.Request(f"{front.admin}/policy", data=body, method="PUT")
    try:
        with urllib.request.urlopen(asked, timeout=20) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def complete(front: Balancer, count: int) -> list[int]:
    """How many of so many equal requests, one after another, each replica that got any was given."""
    before = pushed(front)
    for _ in range(count):
        fields = {"model": "mock", "prompt": "the same words " * 100, "max_tokens": 2}
        asked = urllib.request.Request(
            f"{front.url}/v1/completions",
            data=json.dumps(fields).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(asked, timeout=20) as answer:
            answer.read()
    after = pushed(front)
    return sorted(after[name] - before[name] for name in after if after[name] > before[name])


def pushed(front: Balancer) -> dict[str, int]:
    return {replica["name"]: replica["pushed_total"] for replica in front.state()["engine"]["replicas"]}


def test_requests_follow_the_policy_that_was_asked_for_last_until_the_next_start() -> None:
    with (
        mocks(REPLICAS, "--profile", "instant") as urls,
        balancer(*urls, arguments=["--policy", "prefix"]) as front,
    ):
        eventually(lambda: sample_sum(front.metrics(), "skylb_replica_ready") == REPLICAS, what="all ready")
        assert complete(front, 2 * REPLICAS) == [2 * REPLICAS]
        assert put_policy(front, b'{"policy": "round_robin"}') == (
            200,
            {"policy": "round_robin", "before": "prefix"},
        )
        assert complete(front, 2 * REPLICAS) == [2] * REPLICAS
        status, said = put_policy(front, b'{"policy": "best"}')
        assert (status, said["error"]["code"]) == (400, "bad_policy")
        front.child.send(signal.SIGHUP)
        front.child.require(lambda: "read again" in front.child.text(), what="renewed")
        shown = front.state()
        assert shown["process"]["policy"] == shown["engine"]["policy"] == "round_robin"
        assert 'skylb_policy_info{policy="round_robin"} 1.0' in front.metrics()
        front.child.require(lambda: len(front.log()) == 4 * REPLICAS, what="logged")
        assert [line["policy"] for line in front.log()] == (
            ["prefix"] * 2 * REPLICAS + ["round_robin"] * 2 * REPLICAS
        )


def test_a_shadow_of_the_policy_agrees_and_one_of_another_policy_says_how_often_it_differs() -> None:
    with mocks(REPLICAS, "--profile", "instant") as urls:
        for shadow, apart in (("prefix", False), ("round_robin", True)):
            arguments = ["--policy", "prefix", "--shadow-policy", shadow]
            with balancer(*urls, arguments=arguments) as front:
                eventually(
                    lambda: sample_sum(front.metrics(), "skylb_replica_ready") == REPLICAS, what="all ready"
                )
                assert complete(front, 2 * REPLICAS) == [2 * REPLICAS]
                shown = front.state()["engine"]["shadow"]
                assert shown["policy"] == shadow
                assert shown["same"] + shown["other"] == 2 * REPLICAS
                assert (shown["other"] > 0) is apart
                choices = f'skylb_shadow_choices_total{{policy="{shadow}",result="same"}} {shown["same"]}.0'
                assert choices in front.metrics()
