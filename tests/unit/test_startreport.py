"""What is said at the start of a fleet whose key nobody has to show."""

from pathlib import Path
from typing import Any

import pytest

from skylb.addresses import ListenAddress
from skylb.config import Settings
from skylb.startreport import curl_line, open_warning

NEAR = (ListenAddress("127.0.0.1", 8080), ListenAddress("::1", 8080))
FAR = (ListenAddress("127.0.0.1", 8080), ListenAddress("0.0.0.0", 8081))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "file").write_text("x")
    return tmp_path / "file"


def settings(**given: Any) -> Settings:
    return Settings.model_construct(**{**Settings(replica=("http://a",)).__dict__, **given})


def test_a_fleet_that_is_open_to_others_is_said_aloud_with_what_to_do(file: Path) -> None:
    said = open_warning(settings(replica_key_file=file, listen=FAR))
    assert said is not None
    assert "EVERYBODY WHO REACHES 127.0.0.1:8080, 0.0.0.0:8081 can use the replicas with this key" in said
    for way in ("--keys-file", "skylb keys new", "--tls-client-ca", "--probe-key-file"):
        assert way in said


def test_one_that_is_open_to_this_machine_is_said_too(file: Path) -> None:
    said = open_warning(settings(replica_key_file=file, listen=NEAR))
    assert said is not None
    assert "everybody on this machine can use the replicas" in said


@pytest.mark.parametrize("given", ["keys_file", "tls_client_ca"])
def test_where_clients_are_checked_there_is_nothing_to_say(file: Path, given: str) -> None:
    assert open_warning(settings(replica_key_file=file, listen=FAR, **{given: file})) is None


def test_where_replicas_have_no_key_of_ours_there_is_nothing_to_say() -> None:
    assert open_warning(settings(listen=FAR)) is None


def test_the_line_to_try_has_a_place_for_the_key_where_one_is_needed() -> None:
    keyed = curl_line("http", NEAR[0], "m", keyed=True)
    assert "-H 'Authorization: Bearer KEY'" in keyed
    assert "Authorization" not in curl_line("http", NEAR[0], "m")
