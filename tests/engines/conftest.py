"""Fixtures: fleets of real vLLM servers, one kind at a time (each server takes about 4 GB)."""

import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from tests.engines.vllm import Vllm, fleet
from tests.support.processes import eventually


@pytest.fixture(scope="package")
def pair() -> Iterator[list[Vllm]]:
    """Two servers, sixteen sequences each."""
    with fleet(2, "--max-num-seqs", "16") as servers:
        yield servers


@pytest.fixture(scope="module")
def narrow() -> Iterator[list[Vllm]]:
    """Two servers, two sequences each."""
    with fleet(2, "--max-num-seqs", "2") as servers:
        yield servers


@pytest.fixture(scope="module")
def embedder() -> Iterator[list[Vllm]]:
    """One server for embeddings, sixteen sequences."""
    with fleet(1, "--max-num-seqs", "16", "--runner", "pooling", "--convert", "embed") as servers:
        skip_where_it_cannot_compute(servers[0])
        yield servers


def skip_where_it_cannot_compute(server: Vllm) -> None:
    """Asks it itself: on some CPUs vLLM's kernels for pooling end its worker with an illegal instruction."""
    body = b'{"model": "tiny", "input": "hello"}'
    asked = urllib.request.Request(f"{server.url}/v1/embeddings", body, {"Content-Type": "application/json"})
    try:
        urllib.request.urlopen(asked, timeout=300).close()
    except OSError as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        died = "died unexpectedly (exit code"  # of the code it says -4 or nothing, as it happens
        eventually(lambda: died in server.child.text(), what="a worker that died")
        pytest.skip("vLLM's worker died of its first request: its kernels for pooling do not run on this CPU")
