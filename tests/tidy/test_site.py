"""The documentation site: what it takes of the repository, and how it changes it."""

from pathlib import Path

from tests.distribution import site
from tests.tidy.prose import ROOT


def test_every_document_has_a_place_in_the_navigation() -> None:
    assert site.unlisted() == [], "give it a place in tests/distribution/site.py"


def test_links_hold_in_what_is_staged(tmp_path: Path) -> None:
    site.stage(tmp_path)
    first = (tmp_path / "index.md").read_text()
    assert ":caption: Reference" in first
    assert "API <docs/API.md>" in first
    assert "README.md" not in (tmp_path / "docs" / "INSTALL.md").read_text()
    assert (tmp_path / "docs" / "regions.svg").read_bytes() == (ROOT / "docs" / "regions.svg").read_bytes()
    listed = tmp_path / "python" / "skylb" / "tools" / "sim" / "scenarios" / "index.md"
    assert "[chat.toml](chat.toml)" in listed.read_text()


def test_a_link_that_is_named_by_its_file_gets_the_pages_title(tmp_path: Path) -> None:
    site.stage(tmp_path)
    assert "[Glossary](GLOSSARY.md)" in (tmp_path / "docs" / "ARCHITECTURE.md").read_text()
    assert "[Operations](docs/OPERATIONS.md)" in (tmp_path / "index.md").read_text()
