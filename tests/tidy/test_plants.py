"""The bugs of `make plants` can still be planted."""

from tests.plants.__main__ import ROOT, bugs


def test_each_bug_finds_its_place_and_names_a_test_that_is_there() -> None:
    for bug in bugs():
        source = (ROOT / bug.file).read_text()
        assert bug.planted(source) != source
        path, _, name = bug.test.partition("::")
        if path.startswith("cargo test "):
            wanted = path.removeprefix("cargo test ").rpartition("::")[2]
            texts = (found.read_text() for found in (ROOT / "rust").rglob("*.rs"))
            assert any(f"fn {wanted}(" in text for text in texts), bug.test
        else:
            assert (ROOT / path).exists(), bug.test
            assert not name or f"def {name}(" in (ROOT / path).read_text(), bug.test


def test_there_are_at_least_fifteen_and_each_is_another() -> None:
    found = bugs()
    assert len({bug.name for bug in found}) == len({(bug.file, bug.find, bug.put) for bug in found})
    assert len(found) >= 15
