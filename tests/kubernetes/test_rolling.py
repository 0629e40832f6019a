"""A rolling replacement of all replicas under load: no request fails."""

import json
import threading
import urllib.error
import urllib.request
from contextlib import ExitStack
from functools import partial

from tests.kubernetes.cluster import Cluster
from tests.kubernetes.front import drains, replicas, serving
from tests.support.processes import Balancer, Child, eventually, get, start_mocks

PROFILE = ("--profile", "l4-8b", "--time-scale", "0.2")
CLIENTS = 6
REPLICAS = 4
BETWEEN_LEN = 12
"""Answers that must come between two steps."""


class Load:
    """Clients that ask one request after the other, every second one for a stream.

    Args:
        front: whom they ask.
    """

    def __init__(self, front: Balancer) -> None:
        self._url = f"{front.url}/v1/chat/completions"
        self._model = json.loads(get(f"{front.url}/v1/models"))["data"][0]["id"]
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(CLIENTS)]
        self.answered = 0
        self.failures: list[str] = []

    def start(self) -> None:
        """Begins."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Lets requests under way end."""
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def more(self, count: int = BETWEEN_LEN) -> None:
        """Waits for so many answers."""
        before = self.answered
        eventually(lambda: self.answered - before >= count or self.failures, timeout_s=120, what="answers")

    def _run(self, number: int) -> None:
        turn = number
        while not self._ended.is_set():
            turn += CLIENTS
            try:
                self._ask(turn, stream=turn // CLIENTS % 2 == 0)
            except (OSError, ValueError, AssertionError) as error:
                said = error.read().decode() if isinstance(error, urllib.error.HTTPError) else ""
                self.failures.append(f"{error!r} {said}")
                return
            self.answered += 1

    def _ask(self, turn: int, *, stream: bool) -> None:
        # A prompt that nobody has seen yet: one that is cached would go where it is cached.
        messages = [{"role": "user", "content": f"{self._model} {turn} " + "word " * 200}]
        body = {"model": self._model, "messages": messages, "max_tokens": 40, "stream": stream}
        request = urllib.request.Request(
            self._url, data=json.dumps(body).encode(), headers={"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            content = answer.read().decode()
        if stream:
            events = content.split("\n\n")
            assert events[-2:] == ["data: [DONE]", ""], content[-300:]
            assert not any('"error"' in event for event in events), content[-300:]
        else:
            assert json.loads(content)["choices"][0]["finish_reason"] == "length", content[-300:]


def test_a_rolling_replacement_of_four_replicas_under_load_costs_no_request(cluster: Cluster) -> None:
    cluster.service("vllm")
    mocks: dict[str, Child] = {}
    with ExitStack() as stack:

        def add(number: int) -> None:
            """A new pod: its server starts, then its node says that it is ready."""
            child, _ = start_mocks(1, *PROFILE, listen=f"{_address(number)}:8000")
            stack.callback(child.stop)
            mocks[_address(number)] = child
            cluster.run(f"vllm-{number}", _address(number), ready=True)

        def remove(number: int) -> None:
            """As a node ends a pod: it terminates; a hook waits until nobody uses it; SIGTERM; it is gone."""
            address = _address(number)
            cluster.delete(f"vllm-{number}")
            eventually(lambda: drains(front).get(address), what=f"{address} drains")
            before = pushed(number)
            assert before > 0, "it had served"
            eventually(
                lambda: replicas(front)[address]["in_flight"] == 0, timeout_s=120, what="its last ends"
            )
            assert pushed(number) == before, "it gets no request while it drains"
            mocks[address].stop()
            cluster.gone(f"vllm-{number}")
            eventually(lambda: address not in drains(front), what=f"{address} leaves")

        def pushed(number: int) -> int:
            """Requests that a replica was given."""
            return int(replicas(front).get(_address(number), {}).get("pushed_total", 0))

        for number in range(REPLICAS):
            add(number)
        front = stack.enter_context(serving(cluster, wait_ready=True))
        eventually(
            lambda: sum(row["ready"] for row in replicas(front).values()) == REPLICAS, what="all ready"
        )
        load = Load(front)
        stack.callback(load.stop)
        load.start()
        load.more()
        for number in range(REPLICAS):
            new = REPLICAS + number
            add(new)
            eventually(partial(pushed, new), what="the new one serves")
            remove(number)
            load.more()
        load.stop()
        assert load.failures == []
        assert sorted(drains(front)) == [_address(REPLICAS + number) for number in range(REPLICAS)]
        ended = {(entry["status"], entry["attempts"]) for entry in front.log() if entry["method"] == "POST"}
        assert ended == {(200, 1)}, "none was tried twice either"
        assert load.answered >= (REPLICAS + 1) * BETWEEN_LEN


def _address(number: int) -> str:
    return f"10.88.1.{number + 1}"
