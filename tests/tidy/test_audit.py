"""What `make audit` makes of its tools' reports."""

from tests.tidy.audit import CLEAN, NAMED, UNKNOWN, python_verdict, rust_verdict, worst

GOOD = {"name": "a", "version": "1", "vulns": []}
BAD = {"name": "b", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["2.1"]}]}
SKIPPED = {"name": "c", "skip_reason": "not found"}


def test_packages_that_could_not_be_looked_up_are_not_called_clean() -> None:
    assert python_verdict({"dependencies": [GOOD]}) == (CLEAN, [])
    assert python_verdict({"dependencies": [GOOD, SKIPPED]})[0] == UNKNOWN
    assert python_verdict({"dependencies": []})[0] == UNKNOWN


def test_an_advisory_is_told_with_the_version_that_mends_it() -> None:
    assert python_verdict({"dependencies": [BAD, SKIPPED]})[0] == NAMED
    assert python_verdict({"dependencies": [BAD]})[1] == ["b 2: CVE-1, mended in 2.1"]


def test_rusts_report_is_read_alike() -> None:
    entry = {"package": {"name": "x", "version": "1"}, "advisory": {"id": "RUSTSEC-1"}}
    assert rust_verdict({"vulnerabilities": {"list": [entry]}}) == (NAMED, ["x 1: RUSTSEC-1"])
    assert rust_verdict({"vulnerabilities": {"list": []}}) == (CLEAN, [])


def test_one_advisory_outweighs_a_database_that_was_not_there() -> None:
    assert worst([CLEAN, UNKNOWN, NAMED]) == NAMED
    assert worst([CLEAN, UNKNOWN]) == UNKNOWN
    assert worst([CLEAN]) == CLEAN
