"""Keys of clients: a real balancer in front of mock replicas, the real SDKs, and a file that changes."""

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from skylb.keys.edit import add_key
from tests.support.processes import (
    PATIENCE_S,
    SKYLB,
    Balancer,
    Child,
    balancer,
    eventually,
    free_port,
    get,
    mocks,
)
from tests.support.regions import regions
from tests.support.renewed import renew

MESSAGES: Any = [{"role": "user", "content": "hello"}]
SELDOM = ["--discovery-file-s", "3600"]
SOON = ["--discovery-file-s", "0.05"]
LIMITLESS: dict[str, object] = {}


@dataclass
class Keyed:
    """A keys file, and the keys in it."""

    path: Path

    def new(self, tenant: str = "acme", terms: dict[str, object] = LIMITLESS, **fields: object) -> str:
        """A new key."""
        key, _ = add_key(self.path, tenant, terms, fields)
        return key

    def ids(self) -> list[str]:
        """Of all keys, in their order."""
        command = [*SKYLB, "keys", "list", "--file", str(self.path), "--json"]
        listed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE_S)
        return [json.loads(line)["id"] for line in listed.stdout.splitlines()]

    def revoke(self, key_id: str) -> None:
        """By the command."""
        command = [*SKYLB, "keys", "revoke", key_id, "--file", str(self.path)]
        subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE_S)

    @contextmanager
    def guarding(self, *arguments: str, mock: tuple[str, ...] = ()) -> Iterator[Balancer]:
        """A balancer that reads it, in front of one replica."""
        with mocks(1, "--model", "m", "--profile", "instant", *mock) as urls:
            with balancer(*urls, arguments=["--keys-file", str(self.path), *arguments]) as front:
                yield front


@pytest.fixture
def keyed(tmp_path: Path) -> Keyed:
    return Keyed(tmp_path / "keys.toml")


@contextmanager
def sdk(front: Balancer, key: str, **options: Any) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{front.url}/v1", api_key=key, **{"max_retries": 0, **options}) as client:
        yield client


@contextmanager
def claude(front: Balancer, key: str, **options: Any) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=front.url, api_key=key, **{"max_retries": 0, **options}) as client:
        yield client


def ask(front: Balancer, key: str, model: str = "m") -> str:
    """One chat; the reason for which it ended, or the code of the error."""
    with sdk(front, key) as client:
        try:
            answer = client.chat.completions.create(model=model, messages=MESSAGES, max_tokens=4)
        except openai.APIStatusError as error:
            return str(error.code)
    return str(answer.choices[0].finish_reason)


# ------------------------------------------------------------------------ right and wrong


def test_the_sdks_are_served_with_a_key_and_refused_in_their_own_words_without(keyed: Keyed) -> None:
    key = keyed.new()
    old = keyed.new(expires=datetime.now(UTC) - timedelta(seconds=1))
    with keyed.guarding() as front:
        assert ask(front, key) == "length"
        with claude(front, key) as client:
            said = client.messages.create(model="m", max_tokens=4, messages=MESSAGES)
            assert said.usage.output_tokens == 4
        for wrong in ("sk-wrong", old, f"{key}x", key[:-1], key.upper()):
            with sdk(front, wrong) as client, pytest.raises(openai.AuthenticationError) as caught:
                client.chat.completions.create(model="m", messages=MESSAGES)
            assert caught.value.code == "invalid_api_key"
            assert wrong not in caught.value.message
            with claude(front, wrong) as other, pytest.raises(anthropic.AuthenticationError) as refused:
                other.messages.create(model="m", max_tokens=4, messages=MESSAGES)
            assert refused.value.body["error"]["type"] == "authentication_error"  # type: ignore[index]  # typed as object
        assert front.metric("skylb_keys_refused_total") == 10
        counted = front.metrics()
        assert 'skylb_keys_refused_total{reason="unknown"} 8.0' in counted
        assert 'skylb_keys_refused_total{reason="expired"} 2.0' in counted
        eventually(lambda: len(front.log()) == 2 + 10, what="all are logged")
        lines = front.log()
        assert {line["tenant"] for line in lines if line["status"] == 200} == {"acme"}
        assert {(line["tenant"], line["error_code"]) for line in lines if line["status"] == 401} == {
            (None, "invalid_api_key")
        }
        assert key not in front.child.text() + counted + front.access_log.read_text()


def test_state_and_report_say_how_many_keys_there_are_and_none_of_them(keyed: Keyed) -> None:
    key = keyed.new()
    keyed.new("globex", revoked=datetime.now(UTC) - timedelta(days=1))
    with keyed.guarding() as front:
        said = front.state()["keys"]
        assert (said["tenants"], said["keys"]) == (2, {"valid": 1, "expired": 0, "revoked": 1})
        assert said["fault"] is None
        front.child.require(lambda: '"ready: ' in front.child.text(), what="the report")
        (ready,) = [line for line in front.child.text().splitlines() if '"ready: ' in line]
        assert "keys     2 tenants, 1 valid key, 1 revoked" in ready
        assert key not in json.dumps(front.state())


def test_the_list_of_models_has_those_that_the_tenant_may_use(keyed: Keyed) -> None:
    one, other = keyed.new("one", {"models": ["m"]}), keyed.new("other", {"models": ["n", "o"]})
    with keyed.guarding(mock=("--model", "n")) as front:
        for key, listed in ((one, ["m"]), (other, ["n"])):
            with sdk(front, key) as client:
                assert [model.id for model in client.models.list().data] == listed


def test_a_tenant_is_served_in_its_regions_alone(keyed: Keyed) -> None:
    here = keyed.new("here", {"regions": ["local", "far"]})
    there = keyed.new("there", {"regions": ["far"]})
    with keyed.guarding() as front:
        assert ask(front, here) == "length"
        assert ask(front, there) == "residency"


def test_a_tenant_of_another_region_is_served_there_and_its_peer_asks_for_no_key(keyed: Keyed) -> None:
    key = keyed.new("away", {"regions": ["eu"]})
    arguments = ["--keys-file", str(keyed.path)]
    with regions("us", "eu", replicas=1, mock=("--profile", "instant"), arguments=arguments) as found:
        us, eu = found["us"].front, found["eu"].front
        assert ask(us, key, "mock") == "length"
        assert ask(us, "sk-wrong", "mock") == "invalid_api_key"
        eventually(lambda: (len(us.log()), len(eu.log())) == (2, 1), what="the lines of both")
        (served,) = [line for line in us.log() if line["status"] == 200]
        assert (served["tenant"], served["peer"]) == ("away", "eu")
        assert (eu.log()[0]["tenant"], eu.log()[0]["status"]) == ("away", 200)
        usage = [json.loads(get(f"{front.admin}/usage"))["tenants"] for front in (us, eu)]
        charged = [sum(row["requests"] for tenant in said for row in tenant["models"]) for said in usage]
        assert charged == [1, 0], "a forward is counted where the client came in"


# ------------------------------------------------------------------------ while it runs


def test_a_key_revoked_in_mid_stream_ends_its_stream_whole_and_begins_no_other(keyed: Keyed) -> None:
    key = keyed.new()
    with keyed.guarding(*SOON, mock=("--step-base-us", "20000")) as front, sdk(front, key) as client:
        stream = client.chat.completions.create(
            model="m", messages=MESSAGES, max_tokens=300, stream=True, extra_body={"ignore_eos": True}
        )
        chunks = [next(stream)]
        keyed.revoke(keyed.ids()[0])
        eventually(lambda: ask(front, key) == "invalid_api_key", what="the key is refused")
        chunks += stream
        assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "length"
        assert 'skylb_keys_refused_total{reason="revoked"}' in front.metrics()
        front.child.require(
            lambda: f"are revoked: {keyed.ids()[0]} (" in front.child.text(), what="a line with the id"
        )


def test_a_new_key_is_valid_without_a_restart_and_at_once_by_sighup(keyed: Keyed) -> None:
    keyed.new()
    with keyed.guarding(*SELDOM) as front:
        later = keyed.new("globex")
        assert ask(front, later) == "invalid_api_key"
        front.child.send(signal.SIGHUP)
        eventually(lambda: ask(front, later) == "length", what="the new key is valid")


def test_a_key_expires_without_a_reading_of_the_file(keyed: Keyed) -> None:
    key = keyed.new(expires=datetime.now(UTC) + timedelta(days=1))
    text = keyed.path.read_text()
    with keyed.guarding(*SELDOM) as front:
        assert ask(front, key) == "length"
    soon = datetime.now(UTC) + timedelta(seconds=4)
    lines = [line for line in text.splitlines() if not line.startswith("expires")]
    keyed.path.write_text("\n".join([*lines, f"expires = {soon.isoformat(timespec='seconds')}", ""]))
    with keyed.guarding(*SELDOM) as front:
        eventually(lambda: ask(front, key) == "invalid_api_key", what="the key has expired")


def test_a_file_that_breaks_leaves_the_last_good_keys_in_use_and_is_said_once(keyed: Keyed) -> None:
    key = keyed.new()
    good = keyed.path.read_text()
    with keyed.guarding(*SOON) as front:
        renew(keyed.path, good.replace("sha256", "sha265"))
        eventually(lambda: front.metric("skylb_keys_file_good") == 0, what="the fault is seen")
        fault = front.state()["keys"]["fault"]
        assert "keys[1]: unknown field; did you mean sha256?" in fault or "sha256: missing" in fault
        front.child.require(lambda: "stay in use" in front.child.text(), what="a line that says so")
        for _ in range(5):
            assert ask(front, key) == "length"
        assert front.child.text().count("the last good keys stay in use") == 1
        renew(keyed.path, f"{good}\n[tenants.globex]\n")
        eventually(lambda: front.metric("skylb_keys_file_good") == 1, what="the file is good")
        assert front.state()["keys"]["tenants"] == 2
        front.child.require(lambda: "is good again" in front.child.text(), what="a line that says so")


def test_a_file_that_is_gone_leaves_the_keys_in_use(keyed: Keyed) -> None:
    key = keyed.new()
    with keyed.guarding(*SOON) as front:
        keyed.path.unlink()
        eventually(lambda: front.metric("skylb_keys_file_good") == 0, what="the fault is seen")
        assert ask(front, key) == "length"


# ------------------------------------------------------------------------------ at start


def refused_start(*arguments: str) -> str:
    """What a balancer says that does not start; its exit status is that of a bad configuration."""
    command = [*SKYLB, "serve", "--listen", f"127.0.0.1:{free_port()}", "--admin", f"127.0.0.1:{free_port()}"]
    child = Child([*command, "--replica", "http://127.0.0.1:1", *arguments])
    try:
        assert child.popen.wait(PATIENCE_S) == 2
        return child.text()
    finally:
        child.stop()


def test_a_file_that_is_broken_at_start_is_an_error_with_all_its_faults(keyed: Keyed) -> None:
    key = keyed.new()
    keyed.path.write_text(
        keyed.path.read_text().replace("[tenants.acme]", "[tenants.acme]\nweight = 0\nx = 1")
    )
    said = refused_start("--keys-file", str(keyed.path))
    assert "tenants.acme.weight: expected an integer at least 1 and at most 1000" in said
    assert "tenants.acme: unknown field x" in said
    assert key not in said
    checked = subprocess.run(
        [*SKYLB, "config", "check", "--replica", "http://127.0.0.1:1", "--keys-file", str(keyed.path)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert checked.returncode == 2
    assert "tenants.acme.weight" in checked.stderr


def test_two_files_of_keys_are_one_too_many(keyed: Keyed, tmp_path: Path) -> None:
    keyed.new()
    (tmp_path / "tenants").write_text(f"acme:{'0' * 64}\n")
    said = refused_start("--keys-file", str(keyed.path), "--tenant-key-file", str(tmp_path / "tenants"))
    assert "expected keys_file alone, which names tenants too" in said
