"""`skylb doctor` in front of real mock replicas, of engines that the test plays, and of real balancers."""

import asyncio
import json
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from skylb.keys.edit import add_key, revoke_key
from tests.support.kubernetes import endpoint, endpoint_slice, fake_api, status
from tests.support.processes import PATIENCE_S, SKYLB, balancer, eventually, free_port, get, mocks
from tests.support.regions import key_line

pytestmark = pytest.mark.any_clock

FREE = ("--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
"""Any addresses will do."""

FAST = ("--profile", "instant")

KEY = "the-engines-key"

MODELS = b'{"object": "list", "data": [{"id": "mock", "max_model_len": 16384}]}'


def doctor(
    *arguments: str, prefix: tuple[str, ...] = (), listen: tuple[str, ...] = FREE
) -> subprocess.CompletedProcess[str]:
    """One run to its end."""
    patient = ("--timeout-probe-s", "20", "--timeout-connect-s", "20")
    command = [*prefix, *SKYLB, "doctor", "--connections-max", "64", *patient, *listen, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=4 * PATIENCE_S, check=False)


def findings(*arguments: str, **named: Any) -> dict[str, list[dict[str, Any]]]:
    """What it finds, by level; its status says the same."""
    ended = doctor(*arguments, "--json", **named)
    assert ended.stderr == ""
    page = json.loads(ended.stdout)
    assert page["works"] == (ended.returncode == 0)
    found: dict[str, list[dict[str, Any]]] = {"ok": [], "warning": [], "fault": []}
    for row in page["findings"]:
        found[row["level"]].append(row)
    assert (ended.returncode, bool(found["fault"])) in {(0, False), (1, True)}
    assert all(row["fix"] for row in found["warning"] + found["fault"]), "a finding says what to do"
    return found


def texts(rows: list[dict[str, Any]]) -> str:
    return "\n".join(f"{row['area']} {row['subject']}: {row['text']} [{row['fix']}]" for row in rows)


class Engine(ThreadingHTTPServer):
    """An engine that the test plays.

    Args:
        page: its ``/metrics``.
        key: what ``/v1/`` asks for.
        ahead_s: how far its clock is ahead.
        silent: answers nothing.
    """

    daemon_threads = True

    def __init__(self, page: bytes, *, key: str = "", ahead_s: float = 0, silent: bool = False) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.page, self.key, self.ahead_s = page, key, ahead_s
        self.go = threading.Event()
        if not silent:
            self.go.set()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Engine

    def do_GET(self) -> None:
        self.server.go.wait(PATIENCE_S)
        status, body = 200, b'{"version": "0.32.0"}'
        if self.path.startswith("/metrics"):
            body = self.server.page
        elif self.path.startswith("/v1/"):
            allowed = self.headers.get("Authorization") == f"Bearer {self.server.key}" or not self.server.key
            status, body = (200, MODELS) if allowed else (401, b"{}")
        self.send_response_only(status)
        self.send_header("Date", formatdate(time.time() + self.server.ahead_s, usegmt=True))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing is logged."""


@contextmanager
def engine(page: bytes, **named: Any) -> Iterator[Engine]:
    """A played engine while it runs."""
    played = Engine(page, **named)
    thread = threading.Thread(target=played.serve_forever, daemon=True)
    thread.start()
    try:
        yield played
    finally:
        played.go.set()
        played.shutdown()
        played.server_close()
        thread.join(PATIENCE_S)


@pytest.fixture(scope="module")
def urls() -> Iterator[list[str]]:
    with mocks(2, *FAST) as found:
        yield found


@pytest.fixture(scope="module")
def page(urls: list[str]) -> bytes:
    return get(f"{urls[0]}/metrics")


# ---------------------------------------------------------------------------------- replicas


def test_a_good_fleet_is_described_and_the_status_is_0(urls: list[str]) -> None:
    ended = doctor("--replica", urls[0], "--replica", urls[1], "--ask")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert f"replica {urls[0]}, {urls[1]}: vllm 0.32.0" in ended.stdout
    for part in ("KV", "prefix caching on", "mock (up to", "0 faults, 0 warnings: it would work"):
        assert part in ended.stdout
    assert max(map(len, ended.stdout.splitlines())) <= 80


def test_flags_of_other_routers_are_taken_too(urls: list[str]) -> None:
    ended = doctor("--worker-urls", *urls)
    assert ended.returncode == 0
    assert ended.stderr.startswith("skylb: flags of ")


def test_a_replica_that_is_down_is_a_fault_and_the_others_are_described(urls: list[str]) -> None:
    found = findings("--replica", urls[0], "--replica", "http://127.0.0.1:9")
    [fault] = found["fault"]
    assert fault["subject"] == "http://127.0.0.1:9"
    assert fault["text"].startswith("not reached at 127.0.0.1 port 9")
    assert any(row["subject"] == urls[0] and "vllm" in row["text"] for row in found["ok"])


def test_a_name_that_does_not_resolve_is_a_fault(urls: list[str]) -> None:
    found = findings("--replica", urls[0], "--replica", "http://no-such-name.invalid:8000")
    assert [row["subject"] for row in found["fault"]] == ["http://no-such-name.invalid:8000"]
    assert "does not resolve" in found["fault"][0]["text"]


def test_replicas_that_hang_end_within_the_time_of_a_probe_each(urls: list[str], page: bytes) -> None:
    with engine(page, silent=True) as hanging:
        found = findings("--replica", urls[0], "--replica", hanging.url, "--timeout-probe-s", "0.2")
    assert "/metrics cannot be read (no answer in time)" in texts(found["warning"])


def test_metrics_that_are_missing_make_a_replica_blind() -> None:
    with mocks(1, *FAST, "--fault-metrics-status", "404") as [url]:
        found = findings("--replica", url)
    assert "/metrics answers 404, so it is blind" in texts(found["warning"])


def test_names_that_are_missing_are_said_by_what_that_means(page: bytes) -> None:
    lines = [line for line in page.splitlines() if b"cache_config_info" not in line]
    with engine(b"\n".join(lines) + b"\n") as old:
        found = findings("--replica", old.url)
    assert "does not say the size of its KV cache (--engine-replica-kv-tokens is assumed)" in texts(
        found["warning"]
    )


def test_prefix_caching_that_is_off_is_said(page: bytes) -> None:
    with engine(page.replace(b'enable_prefix_caching="True"', b'enable_prefix_caching="False"')) as off:
        found = findings("--replica", off.url)
    assert "prefix caching is off" in texts(found["warning"])


def test_replicas_with_different_models_and_lengths_are_compared() -> None:
    with (
        mocks(1, *FAST, "--model", "one", "--model", "shared", "--max-model-len", "1024") as [first],
        mocks(1, *FAST, "--model", "two", "--model", "shared", "--max-model-len", "2048") as [second],
    ):
        found = findings("--replica", first, "--replica", second)
    alone = [row["subject"] for row in found["warning"] if "one replica alone" in row["text"]]
    assert sorted(alone) == ["one", "two"]
    assert "model shared: replicas take 1024 to 2048 tokens of it" in texts(found["warning"])


def test_a_clock_that_is_wrong_is_a_warning(page: bytes) -> None:
    with engine(page, ahead_s=3600) as ahead, engine(page, ahead_s=-3600) as behind:
        found = findings("--replica", ahead.url, "--replica", behind.url)
    said = {row["subject"]: row["text"] for row in found["warning"] if "clock" in row["text"]}
    assert "s ahead of this machine's" in said[ahead.url]
    assert "s behind this machine's" in said[behind.url]


def test_an_answer_without_cached_tokens_is_said_only_when_it_is_asked_for(page: bytes) -> None:
    with engine(page) as played:
        assert "/v1/completions" not in texts(findings("--replica", played.url)["warning"])
        found = findings("--replica", played.url, "--ask")
    assert "a request of one token to /v1/completions is answered 501" in texts(found["warning"])


# -------------------------------------------------------------------------------------- keys


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """The paths of a right key and of a wrong one."""
    made = {}
    for name, key in (("right", KEY), ("wrong", "another-key")):
        (tmp_path / name).write_text(f"{key}\n")
        (tmp_path / name).chmod(0o600)
        made[name] = str(tmp_path / name)
    return made


def test_a_fleet_behind_a_key_without_one_hides_its_models(page: bytes) -> None:
    with engine(page, key=KEY) as keyed:
        found = findings("--replica", keyed.url)
    assert "/v1/models answers 401 without a key" in texts(found["warning"])


def test_the_right_key_for_probes_is_taken(page: bytes, files: dict[str, str]) -> None:
    with engine(page, key=KEY) as keyed:
        found = findings("--replica", keyed.url, "--probe-key-file", files["right"])
    assert found["warning"] == []
    assert "mock (up to 16384 tokens)" in texts(found["ok"])


def test_a_wrong_key_for_probes_is_a_fault_and_no_key_is_printed(page: bytes, files: dict[str, str]) -> None:
    with engine(page, key=KEY) as keyed:
        ended = doctor("--replica", keyed.url, "--probe-key-file", files["wrong"])
    assert ended.returncode == 1
    assert "the engine does not take the key for probes" in " ".join(ended.stdout.split())
    assert "another-key" not in ended.stdout + ended.stderr


def test_a_wrong_key_for_requests_is_a_fault_although_that_for_probes_is_right(
    page: bytes, files: dict[str, str]
) -> None:
    keys = ("--probe-key-file", files["right"], "--replica-key-file", files["wrong"])
    with engine(page, key=KEY) as keyed:
        found = findings("--replica", keyed.url, *keys)
    assert "the engine does not take the key for requests (401)" in texts(found["fault"])


def test_a_key_that_everybody_may_use_or_read_is_said(page: bytes, files: dict[str, str]) -> None:
    Path(files["right"]).chmod(0o644)
    with engine(page, key=KEY) as keyed:
        found = findings("--replica", keyed.url, "--replica-key-file", files["right"])
    assert "every client that reaches the listener can use --replica-key-file" in texts(found["warning"])
    assert f"chmod o= {files['right']}" in texts(found["warning"])


def test_what_is_in_the_keys_file_is_counted_and_models_that_nobody_lists_are_named(
    page: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "keys.toml"
    with engine(page) as played:
        add_key(path, "acme", {"models": ["mock", "mokc"]}, {})
        add_key(path, "globex", {"models": ["mock"]}, {"expires": datetime(2020, 1, 1, tzinfo=UTC)})
        found = findings("--replica", played.url, "--keys-file", str(path))
        assert "keys None: 2 tenants, 1 valid key, 1 expired [" in texts(found["ok"])
        (row,) = found["warning"]
        assert (row["area"], row["subject"]) == ("tenant", "acme")
        assert row["text"] == "no replica lists models that it may use: mokc"
    with engine(page, key=KEY) as hiding:
        found = findings("--replica", hiding.url, "--keys-file", str(path))
        assert "no replica lists" not in texts(found["warning"])


def test_a_keys_file_without_a_valid_key_is_said(page: bytes, tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    _, key_id = add_key(path, "acme", {}, {})
    revoke_key(path, key_id, datetime(2020, 1, 1, tzinfo=UTC))
    with engine(page) as played:
        found = findings("--replica", played.url, "--keys-file", str(path))
    (row,) = found["warning"]
    assert row["text"].startswith(
        "no key of --keys-file is valid now (1 tenant, 0 valid keys, 1 revoked): whoever has to bring"
    )
    assert "keys" not in {row["area"] for row in found["ok"]}


# ------------------------------------------------------------------------------ this machine


def test_a_bad_command_line_is_status_2() -> None:
    ended = doctor("--replica", "nonsense", "--polcy", "x")
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert "skylb: 2 faults in the configuration:" in ended.stderr


def test_a_file_with_something_else_in_it_is_a_fault_and_the_rest_is_looked_at(
    urls: list[str], tmp_path: Path
) -> None:
    (tmp_path / "key").write_text("two words")
    found = findings("--replica", urls[0], "--admin-token-file", str(tmp_path / "key"))
    assert "expected one word of printable ASCII" in texts(found["fault"])
    assert "vllm" in texts(found["ok"])


def test_an_address_in_use_is_a_fault_and_is_not_disturbed(urls: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        found = findings("--replica", urls[0], listen=("--listen", address, "--admin", "127.0.0.1:0"))
        socket.create_connection(taken.getsockname(), 5).close()
    assert f"cannot listen on {address}: already in use" in texts(found["fault"])


def test_the_addresses_of_a_balancer_that_runs_are_a_warning(urls: list[str]) -> None:
    with balancer(*urls) as front:
        listen = ("--listen", f"127.0.0.1:{front.port}", "--admin", f"127.0.0.1:{front.admin_port}")
        found = findings("--replica", urls[0], listen=listen)
    assert texts(found["warning"]).count("already in use, by a balancer that runs") == 2


def test_a_unix_socket_is_looked_at_and_left_as_it_is(urls: list[str], tmp_path: Path) -> None:
    path = tmp_path / "skylb.sock"
    listen = ("--listen", f"unix:{path}", "--admin", "127.0.0.1:0")
    assert findings("--replica", urls[0], listen=listen)["fault"] == []
    assert not path.exists()
    with socket.socket(socket.AF_UNIX) as taken:
        taken.bind(str(path))
        taken.listen()
        assert "already in use" in texts(findings("--replica", urls[0], listen=listen)["fault"])
    assert path.exists()
    (tmp_path / "file").write_text("kept")
    file = ("--listen", f"unix:{tmp_path}/file", "--admin", "127.0.0.1:0")
    assert "already in use" in texts(findings("--replica", urls[0], listen=file)["fault"])
    assert (tmp_path / "file").read_text() == "kept"
    nowhere = ("--listen", f"unix:{tmp_path}/none/skylb.sock", "--admin", "127.0.0.1:0")
    assert "No such file" in texts(findings("--replica", urls[0], listen=nowhere)["fault"])


@pytest.mark.parametrize(("allowed", "level"), [(96, "warning"), (24, "fault")])
def test_few_descriptors_are_said_with_the_number_to_ask_for(
    urls: list[str], allowed: int, level: str
) -> None:
    limit = ("prlimit", f"--nofile={allowed}:{allowed}")
    found = findings("--replica", urls[0], "--connections-max", "1000", prefix=limit)
    said = texts([row for row in found[level] if row["area"] == "descriptors"])
    assert f"{allowed} are allowed" in said
    assert "raise the limit to 2016" in said


# ------------------------------------------------------------------------------------- peers


class Mesh:
    """Settings of the balancers ``eu`` and ``us``."""

    def __init__(self, folder: Path) -> None:
        self.ports = {name: (free_port(), free_port()) for name in ("eu", "us")}
        self.secrets = {"shared": key_line("k1"), "other": key_line("k1"), "strange": key_line("k2")}
        self.files = {}
        for name, line in self.secrets.items():
            self.files[name] = folder / name
            self.files[name].write_text(line)
            self.files[name].chmod(0o600)

    def arguments(self, name: str, secret: str = "shared", lists: str | None = None) -> list[str]:
        """The flags of one of them; ``lists``: how it calls the other."""
        other = "us" if name == "eu" else "eu"
        sync, forward = self.ports[name]
        peer = f"{lists or other}=http://127.0.0.1:{self.ports[other][0]}"
        addresses = ["--sync-listen", f"127.0.0.1:{sync}", "--peer-listen", f"127.0.0.1:{forward}"]
        secrets = ["--peer-key-file", str(self.files[secret])]
        return ["--name", name, "--region", name, "--peer", peer, *addresses, *secrets]


@pytest.fixture
def mesh(tmp_path: Path) -> Mesh:
    return Mesh(tmp_path)


def test_a_peer_that_understands_is_described_and_keeps_nothing_of_the_visit(
    urls: list[str], mesh: Mesh
) -> None:
    with balancer(*urls, arguments=mesh.arguments("us")) as us:
        found = findings("--replica", urls[0], *mesh.arguments("eu"))
        assert "peer us: keys match; region us, round trip" in texts(found["ok"])
        assert found["fault"] == []
        peers = json.loads(get(f"{us.admin}/peers"))["peers"]
        assert [row["state"] for row in peers] == ["dead"], "it has said goodbye"


def test_a_peer_with_another_secret_is_a_fault(urls: list[str], mesh: Mesh) -> None:
    with balancer(*urls, arguments=mesh.arguments("us")):
        other = findings("--replica", urls[0], *mesh.arguments("eu", "other"))
        strange = findings("--replica", urls[0], *mesh.arguments("eu", "strange"))
    assert "the key's id is the same, its secret is not" in texts(other["fault"])
    assert "give both the same --peer-key-file" in texts(strange["fault"])


def test_a_peer_that_does_not_list_this_balancer_is_a_fault(urls: list[str], mesh: Mesh) -> None:
    with balancer(*urls, arguments=mesh.arguments("us", lists="asia")):
        found = findings("--replica", urls[0], *mesh.arguments("eu"))
    assert "peer us: it refuses the handshake: name [list this balancer there" in texts(found["fault"])


def test_a_peer_that_is_down_is_a_fault(urls: list[str], mesh: Mesh) -> None:
    found = findings("--replica", urls[0], *mesh.arguments("eu"))
    assert "not reached" in texts([row for row in found["fault"] if row["area"] == "peer"])


def test_a_list_of_replicas_that_kubernetes_does_not_give_is_named_as_that(
    urls: list[str], tmp_path: Path
) -> None:
    async def test() -> None:
        async with fake_api() as api:
            config = api.config(tmp_path / "kubeconfig")
        given = ("--kubernetes-selector", "app=vllm", "--kubernetes-config", str(config))
        found = await asyncio.to_thread(findings, "--replica", urls[0], *given)
        [fault] = found["fault"]
        assert fault["subject"] == "kubernetes vllm"
        assert fault["text"].startswith(f"the list of Kubernetes is not complete: {api.url} is not reached")
        assert "DNS" not in texts(found["fault"])

    asyncio.run(test())


def test_peers_that_kubernetes_lists_are_greeted_and_a_missing_right_is_a_fault(
    urls: list[str], mesh: Mesh, tmp_path: Path
) -> None:
    sync, forward = mesh.ports["eu"]
    own = ["--name", "eu", "--region", "eu", "--peer-key-file", str(mesh.files["shared"])]
    own += ["--sync-listen", f"127.0.0.1:{sync}", "--peer-listen", f"127.0.0.1:{forward}"]
    ports = ({"name": "sync", "port": mesh.ports["us"][0], "protocol": "TCP"},)

    async def forbid(_: web.Request) -> web.Response:
        return web.json_response(status(403, "Forbidden"), status=403)

    async def test() -> None:
        async with fake_api() as api:
            config = str(api.config(tmp_path / "kubeconfig"))
            given = ("--replica", urls[0], *own, "--peer-kubernetes-service", "skylb")
            given = (*given, "--kubernetes-config", config)
            alone = await asyncio.to_thread(findings, *given)
            assert alone["fault"] == []
            assert "kubernetes skylb: no other balancer is listed" in texts(alone["warning"])
            api.put(endpoint_slice("a", endpoint("127.0.0.1", name="us"), service="skylb", ports=ports))
            with balancer(*urls, arguments=mesh.arguments("us")):
                both = await asyncio.to_thread(findings, *given)
            assert "peer us: keys match" in texts(both["ok"])
            api.handler = forbid
            refused = await asyncio.to_thread(findings, *given)
            [fault] = refused["fault"]
            assert (fault["area"], fault["subject"]) == ("peers", "kubernetes skylb")
            assert "may not list endpointslices" in fault["text"]

    asyncio.run(test())


def test_peers_that_kubernetes_should_list_outside_of_a_cluster_are_a_fault(
    urls: list[str], mesh: Mesh
) -> None:
    arguments = mesh.arguments("eu")
    del arguments[arguments.index("--peer") : arguments.index("--peer") + 2]
    found = findings("--replica", urls[0], *arguments, "--peer-kubernetes-service", "skylb")
    [fault] = found["fault"]
    assert (fault["area"], fault["subject"]) == ("peers", None)
    assert "there is no service account" in fault["text"]


def test_a_mesh_that_runs_is_not_disturbed(urls: list[str], mesh: Mesh) -> None:
    with ExitStack() as running:
        us = running.enter_context(balancer(urls[0], arguments=mesh.arguments("us")))
        running.enter_context(balancer(urls[1], arguments=mesh.arguments("eu")))

        def alive() -> bool:
            return [row["state"] for row in json.loads(get(f"{us.admin}/peers"))["peers"]] == ["alive"]

        eventually(alive, what="alive")
        found = findings("--replica", urls[1], *mesh.arguments("eu"))
        assert "a balancer of this name is connected to it now" in texts(found["ok"])
        assert alive()
