"""Following EndpointSlices, with a server that does what the real one cannot be made to do."""

import asyncio
import json
import logging
from pathlib import Path

import pytest
from aiohttp import web

from skylb.discovery.kubernetes import api as api_module
from skylb.discovery.kubernetes import watch as watch_module
from skylb.discovery.kubernetes.api import Api
from skylb.discovery.kubernetes.slices import SLICES_MAX
from tests.support.following import SELECTOR, World, following, run, three
from tests.support.kubernetes import NAMESPACE, FakeApi, endpoint, endpoint_slice, fake_api, status
from tests.support.plane import until

FORBIDDEN = (
    'endpointslices.discovery.k8s.io is forbidden: User "system:serviceaccount:vllm:skylb" cannot list '
    'resource "endpointslices" in API group "discovery.k8s.io" in the namespace "vllm"'
)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "BACK_OFF_S", 0.01)
    monkeypatch.setattr(watch_module, "WATCH_S_MIN", 0.01)


def test_a_list_of_several_pages_is_taken_as_one_and_changes_are_followed(tmp_path: Path) -> None:
    async def test() -> None:
        async with following(tmp_path, prepare=three) as world:
            await world.sees("a", "b", "c")
            await world.watches(1)
            assert world.taken == [["a", "b", "c"]]
            api = world.api
            assert [query["labelSelector"] for query in api.asked] == [SELECTOR] * 3
            assert {query["namespace"] for query in api.asked} == {NAMESPACE}
            assert api.watched[0]["resourceVersion"] == str(api.version)
            assert api.watched[0]["allowWatchBookmarks"] == "True"
            api.put(endpoint_slice("d"))
            await world.sees("a", "b", "c", "d")
            api.put(endpoint_slice("a", endpoint("10.0.0.2")))
            api.delete("b")
            await world.sees("a", "c", "d")
            assert len(api.lists) == 2

    run(test)


def test_a_watch_that_ends_is_resumed_from_the_last_version_that_was_told(tmp_path: Path) -> None:
    async def test() -> None:
        async with following(tmp_path, prepare=three) as world:
            await world.watches(1)
            api = world.api
            api.version += 50  # of other objects, which only a bookmark tells
            api.bookmark()
            api.end_watches()
            await world.watches(2)
            assert api.watched[1]["resourceVersion"] == str(api.version)
            assert len(api.lists) == 2
            api.put(endpoint_slice("d"))
            await world.sees("a", "b", "c", "d")
            assert world.watcher.failure is None

    run(test)


@pytest.mark.parametrize("clean", [True, False])
def test_a_watch_that_says_nothing_ends_in_a_new_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clean: bool
) -> None:
    """The server may have been asked for a version that it does not have: it would be silent for ever."""

    async def test() -> None:
        async with following(tmp_path, prepare=three) as world:
            await world.watches(1)
            world.api.slices.clear()  # no watch tells it
            if clean:
                world.api.end_watches()
            await world.sees()
            assert len(world.api.lists) >= 3

    if not clean:
        monkeypatch.setattr(watch_module, "WATCH_S", 0)
        monkeypatch.setattr(watch_module, "SILENCE_S", 0.1)
    run(test)


def test_half_an_event_does_not_count_and_the_watch_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        async with following(tmp_path, prepare=three) as world:
            await world.watches(1)
            api = world.api
            api.put(endpoint_slice("d"))
            await world.sees("a", "b", "c", "d")
            api.write(json.dumps({"type": "DELETED", "object": api.slices["a"]}).encode()[:-10])
            api.end_watches()
            await world.watches(2)
            assert api.watched[1]["resourceVersion"] == str(api.version)
            assert world.taken[-1] == ["a", "b", "c", "d"]
            assert len(api.lists) == 2

    run(test)
    assert not caplog.records


def test_an_event_in_pieces_is_read_whole_and_several_at_once_are_told_once(tmp_path: Path) -> None:
    async def test() -> None:
        async with following(tmp_path, prepare=three) as world:
            await world.watches(1)
            api = world.api
            line = json.dumps({"type": "ADDED", "object": api._next(endpoint_slice("d"))}).encode() + b"\n"
            for start in range(0, len(line), 50):
                api.write(line[start : start + 50])
                await asyncio.sleep(0)
            await world.sees("a", "b", "c", "d")
            taken_len = len(world.taken)
            events = [{"type": "ADDED", "object": api._next(endpoint_slice(name))} for name in ("e", "f")]
            api.write(b"".join(json.dumps(event).encode() + b"\n" for event in events))
            await world.sees("a", "b", "c", "d", "e", "f")
            assert len(world.taken) == taken_len + 1

    run(test)


def test_410_in_an_event_ends_in_a_new_list_at_once_and_is_no_failure(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        async with following(tmp_path, prepare=three) as world:
            await world.watches(1)
            del world.api.slices["a"]
            world.api.say("ERROR", status(410, "Expired", "too old resource version: 1 (100)"))
            await world.sees("b", "c")
            await world.watches(2)
            assert world.watcher.failure is None

    run(test)
    assert not caplog.records


@pytest.mark.parametrize("asked", ["watch", "page"])
def test_410_as_the_answer_ends_in_a_new_list(tmp_path: Path, asked: str) -> None:
    async def test() -> None:
        def once(api: FakeApi) -> None:
            three(api)
            gone = iter([True])

            async def expired(request: web.Request) -> web.Response | None:
                is_it = "continue" in request.query if asked == "page" else "watch" in request.query
                return (
                    web.json_response(status(410, "Expired"), status=410)
                    if is_it and next(gone, None)
                    else None
                )

            api.handler = expired

        async with following(tmp_path, prepare=once) as world:
            await world.sees("a", "b", "c")
            await world.watches(1)
            assert len(world.api.lists) == 4
            assert world.watcher.failure is None

    run(test)


def test_a_missing_right_is_named_and_asked_for_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    def forbidding(api: FakeApi) -> None:
        three(api)

        async def forbidden(_request: web.Request) -> web.Response:
            return web.json_response(status(403, "Forbidden", FORBIDDEN), status=403)

        api.handler = forbidden

    async def test() -> None:
        async with following(tmp_path, prepare=forbidding) as world:
            await until(lambda: len(world.api.asked) > 3, "asked again")
            assert world.passed.is_set()
            assert world.watcher.failure == (
                "system:serviceaccount:vllm:skylb may not list endpointslices (API group discovery.k8s.io) "
                "in namespace vllm: grant it the verbs list and watch there"
            )
            world.api.handler = None
            await world.sees("a", "b", "c")
            assert world.watcher.failure is None

    run(test)
    texts = [record.getMessage() for record in caplog.records if record.name.startswith("skylb")]
    assert len(texts) == 2
    assert texts[0].startswith("replicas in namespace vllm: system:serviceaccount:vllm:skylb may not list")
    assert texts[1] == "replicas in namespace vllm: followed again"


def test_after_401_the_credentials_are_read_again_and_one_that_ended_is_no_failure(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def authorizing(api: FakeApi) -> None:
        three(api)

        async def only_new(request: web.Request) -> web.Response | None:
            if request.headers["Authorization"] == "Bearer new":
                return None
            api.config(tmp_path / "config", token="new")
            return web.json_response(status(401, "Unauthorized", "Unauthorized"), status=401)

        api.handler = only_new

    async def test() -> None:
        async with following(tmp_path, prepare=authorizing) as world:
            await world.sees("a", "b", "c")
            assert [query["authorization"] for query in world.api.asked[:2]] == ["Bearer t", "Bearer new"]

    run(test)
    assert not caplog.records


def test_credentials_that_are_refused_again_and_again_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def refusing(api: FakeApi) -> None:
        async def refuse(_request: web.Request) -> web.Response:
            return web.json_response(status(401, "Unauthorized", "Unauthorized"), status=401)

        api.handler = refuse

    async def test() -> None:
        async with following(tmp_path, prepare=refusing) as world:
            await until(lambda: len(world.api.asked) > 3, "asked again")
            assert str(world.watcher.failure).endswith("does not accept the credentials (401 Unauthorized)")
            world.config.write_text("no: kubeconfig")
            await until(lambda: "expected a kubeconfig" in str(world.watcher.failure), "its file is broken")
            world.api.config(world.config)
            world.api.handler = None
            await world.sees()

    run(test)
    assert len(caplog.records) == 1


def test_a_server_that_is_away_at_start_is_told_once_and_followed_when_it_comes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "skylb")

    async def test() -> None:
        async with fake_api() as api:
            url = api.url
            config = api.config(tmp_path / "config")
        client = Api(config)
        await client.open()
        later = FakeApi()
        later.url = url
        world = World(later, client, config)
        task = asyncio.create_task(world.watcher.run())
        assert world.watcher.trouble() == f"{url} has not answered yet"
        await world.passed.wait()
        assert f"{url} is not reached" in str(world.watcher.failure), (
            "the first fault is told: there is no list"
        )
        assert world.watcher.trouble() == world.watcher.failure
        await until(lambda: bool(caplog.records), "and the log has it if the next attempt fails too")
        assert world.taken == []
        three(later)
        await later.start()
        await world.sees("a", "b", "c")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await later.stop()
        await client.close()

    run(test)
    assert len(caplog.records) == 2


def test_a_server_that_goes_changes_nothing_and_one_that_comes_back_is_resumed(tmp_path: Path) -> None:
    async def test() -> None:
        async with following(tmp_path, prepare=three) as world:
            await world.watches(1)
            world.api.put(endpoint_slice("d"))
            await world.sees("a", "b", "c", "d")
            seen_ns, lists_len = world.watcher.seen_ns, len(world.api.lists)
            await world.api.stop()
            await until(lambda: world.watcher.failure is not None, "away")
            assert world.taken[-1] == ["a", "b", "c", "d"]
            back = FakeApi()
            back.url, back.slices, back.version = world.api.url, world.api.slices, world.api.version
            await back.start()
            await until(lambda: back.watches_len == 1, "back")
            assert back.watched[0]["resourceVersion"] == str(back.version)
            assert not back.lists
            back.put(endpoint_slice("e"))
            await world.sees("a", "b", "c", "d", "e")
            assert world.watcher.failure is None
            assert world.watcher.seen_ns > seen_ns
            assert len(world.api.lists) == lists_len
            await back.stop()

    run(test)


@pytest.mark.parametrize("line", [b"<html>\n", b'{"type": "ADDED", "object": {"metadata": 7}}\n', b"\xff\n"])
def test_what_is_no_event_is_told_and_all_is_listed_anew(tmp_path: Path, line: bytes) -> None:
    async def test() -> None:
        async with following(tmp_path, prepare=three) as world:
            await world.watches(1)
            del world.api.slices["a"]
            known = len(world.api.lists)
            world.api.write(line)
            await world.sees("b", "c")
            assert len(world.api.lists) == known + 1

    run(test)


def test_events_before_one_that_is_no_good_count(tmp_path: Path) -> None:
    async def test() -> None:
        async with following(tmp_path, prepare=three) as world:
            await world.watches(1)
            api = world.api
            api.handler = _unavailable
            good = json.dumps({"type": "DELETED", "object": api._next(api.slices["a"])}).encode()
            api.write(good + b"\n<html>\n")
            await world.sees("b", "c")

    run(test)


async def _unavailable(_request: web.Request) -> web.Response:
    return web.Response(status=503, text="<html>no server</html>")


def test_an_error_that_is_not_the_api_servers_is_told_by_its_status(tmp_path: Path) -> None:
    async def test() -> None:
        def broken(api: FakeApi) -> None:
            api.handler = _unavailable

        async with following(tmp_path, prepare=broken) as world:
            await until(lambda: world.watcher.failure is not None, "told")
            assert world.watcher.failure == f"{world.api.url} answers list with 503"

    run(test)


@pytest.mark.parametrize("huge", ["event", "endless event", "page"])
def test_what_is_too_long_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, huge: str) -> None:
    monkeypatch.setattr(api_module, "EVENT_BYTES_MAX", 10_000)
    monkeypatch.setattr(api_module, "PAGE_BYTES_MAX", 10_000)

    async def test() -> None:
        async with following(tmp_path) as world:
            await world.watches(1)
            api = world.api
            large = endpoint_slice("large", annotations={"a": "x" * 20_000})
            if huge == "endless event":
                api.write(b"x" * 20_000)
            else:
                api.put(large)
            if huge == "event":
                api.slices.clear()
            await until(lambda: len(api.asked) > 2, "asked again")
            if huge == "page":
                api.say("ERROR", status(410, "Expired"))
                await until(lambda: "of more than 10000 bytes" in str(world.watcher.failure), "told")
            assert world.taken[-1] == []

    run(test)


def test_a_list_without_an_end_is_given_up_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "PAGES_MAX", 5)

    def endless(api: FakeApi) -> None:
        async def page(_request: web.Request) -> web.Response:
            return web.json_response({"metadata": {"resourceVersion": "1", "continue": "more"}, "items": []})

        api.handler = page

    async def test() -> None:
        async with following(tmp_path, prepare=endless) as world:
            await until(lambda: world.watcher.failure is not None, "told")
            assert str(world.watcher.failure).endswith("no list of slices: a list of more than 5 pages")
            assert not world.taken

    run(test)


def test_slices_beyond_the_bound_are_left_out_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(watch_module, "SLICES_MAX", 2)

    async def test() -> None:
        async with following(tmp_path, prepare=three) as world:
            await world.sees("a", "b")
            await world.watches(1)
            world.api.put(endpoint_slice("d"))
            world.api.delete("a")
            await world.sees("b")
            world.api.put(endpoint_slice("e"))
            await world.sees("b", "e")

    run(test)
    assert [record.getMessage() for record in caplog.records] == [
        "replicas in namespace vllm: slices after the first 2 are left out"
    ]
    assert SLICES_MAX > 2


def test_an_operator_need_not_wait_for_the_next_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_module, "BACK_OFF_S", 1e6)
    monkeypatch.setattr(watch_module, "BACK_OFF_S_MAX", 1e6)

    async def test() -> None:
        def broken(api: FakeApi) -> None:
            three(api)
            api.handler = _unavailable

        async with following(tmp_path, prepare=broken) as world:
            await until(lambda: world.watcher.failure is not None, "told")
            world.api.handler = None
            await asyncio.sleep(0)
            world.watcher.look()
            await world.sees("a", "b", "c")

    run(test)
