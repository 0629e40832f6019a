"""Fixtures: fleets of real vLLM servers, one kind at a time (each server takes about 4 GB)."""

from collections.abc import Iterator

import pytest

from tests.engines.vllm import Vllm, fleet


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
        yield servers
