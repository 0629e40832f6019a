"""Every figure of README follows from a file of results, and the drawn one too."""

import json

import pytest

from bench import figure
from tests.tidy import claims

README = (claims.ROOT / "README.md").read_text()


def test_every_figure_of_the_readme_follows_from_a_file_of_results() -> None:
    faults = claims.faults(README)
    assert not faults, "\n".join(faults)


def test_the_drawn_figure_is_that_of_the_results() -> None:
    results = json.loads(figure.RESULTS.read_text())
    assert figure.PAGE.read_text() == figure.picture(results), "run `make figure`"


@pytest.mark.parametrize("claim", claims.CLAIMS, ids=lambda claim: claim.figures.__name__)
def test_a_claim_whose_figure_changed_is_found(claim: claims.Claim) -> None:
    said = claims.prose(README)
    at = said.index(claim.text())
    changed = said[:at] + "x" + said[at + 1 :]
    links = "".join(f" [x](bench/results/{known.source})" for known in claims.CLAIMS)
    assert any(claim.text() in fault for fault in claims.faults(changed + links))


@pytest.mark.parametrize("planted", ["3.5 times faster.", "It saves 20 %.", "It takes 7 ms.", "9 of 10."])
def test_a_planted_figure_that_no_result_has_is_found(planted: str) -> None:
    assert claims.faults(f"{README}\n{planted}\n") != []


def test_a_missing_link_to_the_results_is_found() -> None:
    without = README.replace("](bench/results/fair.md)", "](docs/EVALUATION.md)")
    assert claims.faults(without) == ["no link to bench/results/fair.md"]
