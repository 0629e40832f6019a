"""Settings of the collector: what is valid, and what each fault says."""

from pathlib import Path

import pytest

from skylb.config import Settings
from skylb.errors import ConfigError
from skylb.options import load, secrets

REPLICA = {"replica": ["http://a:1"]}


def settings(**flags: list[str]) -> Settings:
    given = REPLICA | {name.replace("__", "."): values for name, values in flags.items()}
    return load(Settings, flags=given).settings


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("http://127.0.0.1:4318", "http://127.0.0.1:4318"),
        ("https://collector.example/", "https://collector.example:443"),
        ("https://collector.example:4318/otlp/", "https://collector.example:4318/otlp"),
        ("http://[::1]:4318", "http://[::1]:4318"),
    ],
)
def test_an_endpoint_is_a_url(text: str, endpoint: str) -> None:
    assert settings(otlp__endpoint=[text]).otlp.endpoint == endpoint


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1:4318",
        "grpc://a:4317",
        "http://",
        "http://user:word@a:4318",
        "http://a:4318/?key=1",
        "http://a:4318/a b",
        "http://a:999999",
        "unix:/x",
    ],
)
def test_what_is_no_endpoint_is_a_fault_that_names_it(text: str) -> None:
    with pytest.raises(ConfigError, match=r"otlp.endpoint.*expected http://HOST:PORT"):
        settings(otlp__endpoint=[text])


def test_attributes_of_the_resource_are_pairs() -> None:
    found = settings(otlp__resource=["deployment.environment.name=prod", "team=a=b"])
    assert found.otlp.resource == ("deployment.environment.name=prod", "team=a=b")
    for text in ("prod", "=prod", "a=", "a b=c", "a=\u00e9"):
        with pytest.raises(ConfigError, match=r"otlp.resource.*expected NAME=VALUE"):
            settings(otlp__resource=[text])


def test_what_is_for_a_collector_needs_one(tmp_path: Path) -> None:
    path = tmp_path / "headers"
    path.write_text("X-Key: k\n")
    with pytest.raises(ConfigError, match=r"headers_file is given without otlp\.endpoint: expected both"):
        settings(otlp__headers_file=[str(path)])
    found = settings(otlp__headers_file=[str(path)], otlp__endpoint=["http://a:4318"])
    assert secrets(found)["otlp.headers_file"] == path


def test_the_queue_is_no_longer_than_a_message_that_collectors_take() -> None:
    assert settings(otlp__queue_bytes_max=["16MiB"]).otlp.queue_bytes_max == 16 << 20
    with pytest.raises(ConfigError, match=r"otlp-queue-bytes-max.*at most 16 MiB"):
        settings(otlp__queue_bytes_max=["17MiB"])


def test_one_trace_in_ten_is_exported_unless_it_is_set() -> None:
    assert settings().otlp.sample_ratio == 0.1
