"""The control plane over real sockets: probes, states, models, the fleet."""

import asyncio
import errno
import logging
import socket
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from aiohttp import web

from skylb.clock import STOOD_STILL_S
from skylb.config import DiscoverySettings, EngineSettings, TimeoutSettings
from skylb.control.models import MODELS_MAX
from skylb.upstream import Pool
from tests.support.plane import SGLANG_PAGE, FakeReplica, run, running, settings, until
from tests.support.renewed import renew


def test_a_replica_that_answers_is_ready_and_its_models_are_known() -> None:
    async def test(replica: FakeReplica) -> None:
        async with running(settings(replica.url)) as plane:
            await plane.control.first_look(10)
            gauge = plane.gauge(replica.url)
            assert (gauge.ready, gauge.blind) == (True, False)
            assert (gauge.running, gauge.waiting) == (3, 1)
            assert plane.state(replica.url) == "up"
            assert plane.router.models() == [("m", 4096)]

    run(test)


def test_sglang_is_recognised_by_its_names() -> None:
    async def test(replica: FakeReplica) -> None:
        replica.page = SGLANG_PAGE
        async with running(settings(replica.url)) as plane:
            await plane.control.first_look(10)
            assert (plane.gauge(replica.url).running, plane.gauge(replica.url).waiting) == (2, 1)

    run(test)


def test_an_engine_replaced_by_another_kind_is_read_in_its_dialect() -> None:
    async def test(replica: FakeReplica) -> None:
        async with running(settings(replica.url)) as plane:
            await plane.control.first_look(10)
            replica.page = SGLANG_PAGE
            await until(lambda: plane.gauge(replica.url).running == 2, "the new page is read")

    run(test)


@pytest.mark.parametrize(
    ("page", "status", "why"),
    [
        ("python_gc_objects 1\n", 200, "no load among its metrics"),
        ("vllm:num_requests_running 1.0\n", 200, "no load among its metrics"),
        ("vllm:num_requests_running NaN\nvllm:num_requests_waiting -1\n", 200, "no load among its metrics"),
        ("", 404, "/metrics answers 404"),
    ],
)
def test_a_replica_whose_load_cannot_be_read_is_blind_not_empty(page: str, status: int, why: str) -> None:
    async def test(replica: FakeReplica) -> None:
        replica.page, replica.status = page, status
        async with running(settings(replica.url)) as plane:
            await plane.control.first_look(10)
            assert plane.state(replica.url) == f"blind: {why}"
            assert plane.gauge(replica.url).blind
            assert plane.router.models(), "its models are read all the same"

    run(test)


def test_a_state_is_told_when_it_changes_and_never_per_probe(caplog: pytest.LogCaptureFixture) -> None:
    async def test(replica: FakeReplica) -> None:
        async with running(settings(replica.url)) as plane:
            await plane.control.first_look(10)
            good, replica.page = replica.page, "nothing"
            await until(lambda: plane.state(replica.url).startswith("blind"), "it becomes blind")
            seen = replica.probes
            await until(lambda: replica.probes > seen + 5, "it is probed on")
            replica.page = good
            await until(lambda: plane.state(replica.url) == "up", "it comes up again")

    with caplog.at_level(logging.INFO, logger="skylb.control"):
        run(test)
    told = [record.getMessage().split(" ", 2)[2] for record in caplog.records]
    assert told == [
        "joined",
        "is up",
        "serves m (up to 4096 tokens)",
        "is blind: no load among its metrics",
        "is up",
    ]


def test_a_replica_that_is_down_at_start_is_no_error_and_is_found_when_it_comes() -> None:
    async def test(replica: FakeReplica) -> None:
        late = FakeReplica()
        with TemporaryDirectory() as directory:  # pytest's own is too long for the path of a socket
            await found_when_it_comes(replica, late, f"{directory}/late")
        await late.stop()

    async def found_when_it_comes(replica: FakeReplica, late: FakeReplica, path: str) -> None:
        late.url = f"unix:{path}"
        async with running(settings(late.url, replica.url)) as plane:
            await plane.control.first_look(10)
            assert plane.state(late.url).startswith("down: ")
            assert plane.state(replica.url) == "up"
            await late.start(lambda runner: web.UnixSite(runner, path))
            await until(lambda: plane.gauge(late.url).ready, "it is found")

    run(test)


def test_a_replica_that_comes_back_with_another_model_is_known_by_it() -> None:
    async def test(replica: FakeReplica) -> None:
        async with running(settings(replica.url)) as plane:
            await until(plane.router.models, "models are read")
            replica.models = [
                {"id": "n", "max_model_len": 2048},
                {"id": "adapter", "parent": "n"},
            ]
            await until(
                lambda: plane.router.models() == [("adapter", 2048), ("n", 2048)], "the new list is read"
            )

    run(test)


def test_a_replica_without_a_list_of_models_is_looked_at_all_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test(replica: FakeReplica) -> None:
        replica.models = [{"id": ""}]
        async with running(settings(replica.url)) as plane:
            await plane.control.first_look(10)
            seen = replica.probes
            await until(lambda: replica.probes > seen + 20, "it is probed on")
            replica.models = [{"id": "m"}]
            await until(plane.router.models, "the list is asked for again")

    run(test)
    told = [r.getMessage() for r in caplog.records if "its models are not known" in r.getMessage()]
    assert len(told) == 1


def test_a_broken_list_of_models_keeps_the_last_one() -> None:
    async def test(replica: FakeReplica) -> None:
        async with running(settings(replica.url)) as plane:
            await until(plane.router.models, "models are read")
            replica.models = [{"id": 7}]
            seen = replica.probes
            await until(lambda: replica.probes > seen + 20, "it is probed on")
            assert plane.router.models() == [("m", 4096)]

    run(test)


def test_a_server_that_comes_back_and_refuses_its_list_is_not_known_by_its_old_one() -> None:
    async def test(replica: FakeReplica) -> None:
        async with running(settings(replica.url)) as plane:
            await until(plane.router.models, "models are read")
            replica.models_status = 500
            await until(lambda: "its last list counts" in plane.state(replica.url), "it is remarked")
            await replica.stop()
            await until(lambda: plane.state(replica.url).startswith("down"), "it is away")
            assert plane.router.models() == []
            back = FakeReplica()
            back.models_status = 401
            await back.start(lambda runner: web.TCPSite(runner, "127.0.0.1", int(replica.url.split(":")[2])))
            await until(lambda: "requests for any model" in plane.state(replica.url), "its list is refused")
            assert plane.router.models() == []
            assert plane.router.ready()
            await back.stop()

    run(test)


@pytest.mark.parametrize(
    ("status", "ready"), [(401, True), (403, True), (404, True), (500, True), (501, True), (503, False)]
)
def test_a_replica_whose_models_cannot_be_listed_is_ready_for_any_unless_it_loads(
    status: int, ready: bool
) -> None:
    async def test(replica: FakeReplica) -> None:
        replica.models_status = status
        async with running(settings(replica.url)) as plane:
            plane.control.set_authorization(None, "Bearer probe")
            await plane.control.first_look(10)
            if ready:
                await until(plane.router.ready, "it is sent what is asked for")
            else:
                seen = replica.models_asked
                await until(lambda: replica.models_asked > seen + 1, "it is asked again")
                assert not plane.router.ready()
            plane.control.set_authorization(None, "Bearer other")
            # What is under way still has the old key.
            await until(
                lambda: replica.headers["Authorization"] == "Bearer other",
                "the list is asked for again with another key",
            )
            replica.models_status = 200
            await until(plane.router.models, "it is listed")

    run(test)


@pytest.mark.parametrize("odd", [{"id": 7}, {"id": "x" * 5000}, {"id": "a", "max_model_len": 10**400}])
def test_an_odd_model_takes_no_other_out_of_service(odd: dict[str, object]) -> None:
    async def test(replica: FakeReplica) -> None:
        replica.models = [odd, {"id": "m", "max_model_len": 4096}]
        async with running(settings(replica.url)) as plane:
            await plane.control.first_look(10)
            assert ("m", 4096) in plane.router.models()
            assert not plane.failures

    run(test)


def test_of_more_models_than_are_kept_those_that_fit_are_served(caplog: pytest.LogCaptureFixture) -> None:
    async def test(replica: FakeReplica) -> None:
        replica.models += [{"id": f"adapter-{number:05}", "parent": "m"} for number in range(MODELS_MAX)]
        async with running(settings(replica.url)) as plane:
            await plane.control.first_look(10)
            models = plane.router.models()
            assert len(models) == MODELS_MAX
            assert models[-1] == ("m", 4096)

    run(test)
    assert f"1 more than {MODELS_MAX}" in caplog.text


def test_a_probe_that_stalls_is_given_up_and_only_one_is_under_way() -> None:
    async def test(replica: FakeReplica) -> None:
        replica.release.clear()
        stalled = settings(replica.url, timeout=TimeoutSettings(probe_s=0.1))
        async with running(stalled) as plane:
            await until(lambda: replica.probes >= 3, "it is tried again")
            assert plane.state(replica.url) == "blind: no answer in time"
            assert plane.gauge(replica.url).ready, "its list of models is answered: it may serve"
            # The server may see an abandoned request end a moment after the next one began.
            assert replica.at_once_max <= 2
            replica.release.set()
            await until(lambda: plane.state(replica.url) == "up", "it comes up")

    run(test)


def test_a_replica_that_refuses_connections_is_down_and_one_that_answers_too_much_is_not() -> None:
    async def test(replica: FakeReplica) -> None:
        async with running(settings(replica.url)) as plane:
            await plane.control.first_look(10)
            good, replica.page = replica.page, "# nothing\n" * ((9 << 20) // 10)
            await until(lambda: plane.state(replica.url).startswith("blind: body over"), "it is blind")
            assert plane.gauge(replica.url).ready
            replica.page = good
            await until(lambda: plane.state(replica.url) == "up", "it is read again")
            await replica.stop()
            await until(lambda: plane.state(replica.url).startswith("down: "), "it is down")
            assert plane.gauge(replica.url).health == "down"

    run(test)


def test_a_replica_that_accepts_no_connection_in_time_is_not_up_and_may_come_back_as_another(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def late(*_: object) -> None:
        raise TimeoutError

    def none_idle(*_: object) -> None:
        """A probe under way gives its connection back, and the next one would take it."""

    async def test(replica: FakeReplica) -> None:
        seldom = settings(replica.url, timeout=TimeoutSettings(probe_s=60)).model_copy(
            update={"discovery": DiscoverySettings(models_s=3600)}
        )
        async with running(seldom) as plane:
            prober = plane.control._prober
            await until(plane.router.models, "models are read")
            assert prober.is_up(replica.url)
            replica.models = [{"id": "n"}]
            replica.release.clear()
            await until(lambda: replica.at_once == 1, "a probe is under way")
            with monkeypatch.context() as patch:
                patch.setattr(Pool, "open", late)
                patch.setattr(Pool, "acquire", none_idle)
                replica.release.set()
                await until(lambda: not prober.is_up(replica.url), "it is not up")
            await until(lambda: plane.router.models() == [("n", None)], "its models are read anew")
            assert prober.is_up(replica.url)

    with caplog.at_level(logging.WARNING, "skylb.control.probe"):
        run(test)
    states = [record.getMessage() for record in caplog.records]
    assert states[0].endswith(" is blind: timed out"), "its backlog may be full"


def test_a_connection_that_we_cannot_make_says_nothing_of_the_replica(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    short = OSError(errno.EMFILE, "Too many open files")

    async def test(replica: FakeReplica) -> None:
        async with running(settings(replica.url)) as plane:
            await plane.control.first_look(10)
            tried = 0

            async def fails(*_: object) -> None:
                nonlocal tried
                tried += 1
                raise short

            await replica.stop()
            monkeypatch.setattr(Pool, "open", fails)
            await until(lambda: tried > 3, "it is probed on")
            assert plane.state(replica.url) == "up"
            assert plane.gauge(replica.url).ready

    run(test)


def test_a_probe_answered_while_the_process_stood_still_is_heard(caplog: pytest.LogCaptureFixture) -> None:
    async def test(replica: FakeReplica) -> None:
        patient = settings(replica.url, timeout=TimeoutSettings(probe_s=0.5))
        patient = patient.model_copy(
            update={"engine": EngineSettings(probe_interval_s=0.25, probe_idle_interval_s=0.25)}
        )
        async with running(patient) as plane:
            await plane.control.first_look(10)
            replica.release.clear()
            await until(lambda: replica.at_once == 1, "a probe is under way")
            replica.release.set()
            time.sleep(0.5 + STOOD_STILL_S + 0.5)  # noqa: ASYNC251 - the loop stands still
            seen = replica.probes
            await until(lambda: replica.probes > seen, "it is probed on")
            assert plane.state(replica.url) == "up"

    with caplog.at_level(logging.INFO, "skylb.control.probe"):
        run(test)
    assert "is down" not in caplog.text


def test_replicas_hear_their_name_and_their_key() -> None:
    async def test(replica: FakeReplica) -> None:
        async with running(settings(replica.url), authorization="Bearer secret") as plane:
            await plane.control.first_look(10)
            assert replica.headers["Host"] == replica.url.removeprefix("http://")
            assert replica.headers["Authorization"] == "Bearer secret"
            plane.control.set_authorization("Bearer other")
            await until(lambda: replica.headers["Authorization"] == "Bearer other", "the new key is sent")
            assert plane.router.replicas()[0].authorization == "Bearer other"
            assert plane.router.replicas()[0].id == 1

    run(test)


def test_the_fleet_follows_its_file_and_ids_are_not_reused(tmp_path: Path) -> None:
    async def test(replica: FakeReplica) -> None:
        other = FakeReplica()
        await other.start()
        path = tmp_path / "fleet"
        path.write_text(replica.url)
        async with running(settings(replicas_file=path)) as plane:
            await until(lambda: plane.state(replica.url) == "up", "the first is up")
            renew(path, f"{other.url}\n")
            await until(lambda: plane.state(other.url) == "up", "the second is up")
            assert [(r.id, r.name) for r in plane.router.replicas()] == [(2, other.url)]
            renew(path, "nonsense")
            seen = other.probes
            await until(lambda: other.probes > seen + 5, "the broken file changes nothing")
            renew(path, f"{replica.url}\n{other.url}\n")
            await until(lambda: plane.state(replica.url) == "up", "the first is back")
            assert [(r.id, r.name) for r in plane.router.replicas()] == [(3, replica.url), (2, other.url)]
        await other.stop()

    run(test)


def test_intent_to_drain_is_kept_by_name_while_a_replica_is_away(tmp_path: Path) -> None:
    async def test(replica: FakeReplica) -> None:
        path = tmp_path / "fleet.json"
        path.write_text(f'["{replica.url}"]')
        async with running(settings(replicas_file=path)) as plane:
            assert not plane.control.set_draining("http://unknown:1", draining=True)
            assert plane.control.set_draining(replica.url, draining=True)
            assert plane.gauge(replica.url).draining
            renew(path, "[]")
            await until(lambda: not plane.router.replicas(), "it left")
            renew(path, f'["{replica.url}"]\n')
            await until(plane.router.replicas, "it is back")
            assert plane.gauge(replica.url).draining
            assert plane.control.set_draining(replica.url, draining=False)
            assert not plane.gauge(replica.url).draining

    run(test)


def test_every_address_of_a_dns_name_is_a_replica() -> None:
    async def test(replica: FakeReplica) -> None:
        port = replica.url.rpartition(":")[2]
        by_name = f"http://localhost:{port}"
        async with running(settings(replicas_dns=(by_name,))) as plane:
            await until(lambda: plane.state(replica.url) == "up", "the address is probed")
            assert replica.headers["Host"] == f"localhost:{port}"

    run(test)


def test_closing_leaves_no_task_and_no_connection() -> None:
    async def test(replica: FakeReplica) -> None:
        async with running(settings(replica.url)) as plane:
            await plane.control.first_look(10)
            replica.release.clear()
            await until(lambda: replica.at_once, "a probe is under way")
            await plane.control.close()
            await plane.pool.close()
            await until(lambda: replica.connections == 0, "every connection is closed")
            seen = replica.probes
            for _ in range(20):
                await asyncio.sleep(0)
            assert replica.probes == seen

    run(test)


def test_probe_durations_are_counted_also_of_failed_ones() -> None:
    async def test(replica: FakeReplica) -> None:
        async with running(settings(replica.url, "http://127.0.0.1:9")) as plane:
            await plane.control.first_look(10)
            buckets, _ = plane.metrics.probing.durations.cumulative()
            assert buckets[-1][1] >= 2

    run(test)


def test_what_probing_costs_both_sides_is_counted_while_a_replica_is_in_the_fleet() -> None:
    async def test(replica: FakeReplica) -> None:
        async with running(settings(replica.url)) as plane:
            await plane.control.first_look(10)
            probing = plane.metrics.probing
            ((count, sum_ns),) = probing.replicas.values()
            assert count >= 1
            assert sum_ns > 0
            assert probing.own_ns > 0
            assert probing.bytes_total >= len(replica.page)
            probing.retain(())
            assert probing.replicas == {}

    run(test)


def test_without_replicas_the_first_look_ends_at_once(caplog: pytest.LogCaptureFixture) -> None:
    async def test(replica: FakeReplica) -> None:
        async with running(settings()) as plane:
            await plane.control.first_look(10)
            assert plane.control.states() == {}
        async with running(settings("http://name.invalid:1", replica.url)) as plane:
            await plane.control.first_look(10)
            assert plane.state(replica.url) == "up"
            assert plane.state("http://name.invalid:1").startswith("unresolved: ")

    run(test)
    assert "not every replica was looked at" not in caplog.text


def test_a_probe_that_this_machine_lacks_a_socket_for_says_nothing_of_the_replica(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def lacking(*_: object) -> socket.socket:
        raise OSError(errno.EMFILE, "Too many open files")

    async def test(replica: FakeReplica) -> None:
        with monkeypatch.context() as patch:
            patch.setattr("skylb.upstream._socket", lacking)
            async with running(settings(replica.url)) as plane:
                await until(lambda: plane.pool.shortage.total["connect"] > 2, "probes were tried")
                assert plane.state(replica.url) == "unknown"
                assert plane.gauge(replica.url).failed_total == 0
                patch.undo()
                await until(lambda: plane.state(replica.url) == "up", "it is up once there are sockets")

    run(test)
