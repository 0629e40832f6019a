"""No circle of modules, in Python and in Rust, and proof that a planted one is found."""

import shutil
from pathlib import Path

import pytest

from tests.tidy import circles

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "python" / "skylb"
CORE = ROOT / "rust" / "src"


def test_no_python_modules_need_each_other() -> None:
    found = circles.circles(circles.python_graph(PACKAGE))
    assert [circles.text_of(circle) for circle in found] == []


def test_no_rust_modules_need_each_other() -> None:
    found = circles.circles(circles.rust_graph(CORE))
    assert [circles.text_of(circle) for circle in found] == []


# --------------------------------------------------------------------------- planted circles


def test_a_circle_planted_in_the_python_package_is_found(tmp_path: Path) -> None:
    copy = tmp_path / "skylb"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    with (copy / "clock.py").open("a") as file:
        file.write("\n\ndef late() -> None:\n    from skylb.localrouter import LocalRouter\n")
    found = [circles.text_of(circle) for circle in circles.circles(circles.python_graph(copy))]
    assert found == ["clock.py -> localrouter.py -> clock.py"]


def test_a_circle_planted_in_the_rust_crate_is_found(tmp_path: Path) -> None:
    copy = tmp_path / "src"
    shutil.copytree(CORE, copy)
    with (copy / "id.rs").open("a") as file:
        file.write("\nfn planted() -> crate::record::Recorder {}\n")
    with (copy / "record" / "mod.rs").open("a") as file:
        file.write("\nuse crate::id;\n")
    found = [circles.text_of(circle) for circle in circles.circles(circles.rust_graph(copy))]
    assert "id.rs -> record/mod.rs -> id.rs" in found


def python(directory: Path, files: dict[str, str]) -> list[str]:
    package = directory / "skylb"
    for name, text in {"__init__": "", **files}.items():
        path = (package / name).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return [circles.text_of(circle) for circle in circles.circles(circles.python_graph(package))]


@pytest.mark.parametrize(
    "text",
    [
        "import skylb.b",
        "from skylb import b",
        "from skylb.b import B",
        "from .b import B",
        "from . import b",
        "def f():\n    from skylb.b import B",
        "if TYPE_CHECKING:\n    from skylb.b import B",
    ],
)
def test_every_form_of_import_counts(tmp_path: Path, text: str) -> None:
    assert python(tmp_path, {"a": text, "b": "from skylb.a import A"}) == ["a.py -> b.py -> a.py"]


def test_to_import_a_module_needs_the_packages_that_hold_it(tmp_path: Path) -> None:
    package = {"p/__init__": "from skylb.p.run import run", "p/run": "import skylb.a", "p/leaf": ""}
    found = python(tmp_path, {**package, "a": "from skylb.p.leaf import leaf"})
    assert found == ["a.py -> p/__init__.py -> p/run.py -> a.py"]


def test_modules_that_need_one_another_in_one_direction_are_no_circle(tmp_path: Path) -> None:
    assert python(tmp_path, {"a": "import skylb.b, skylb.c", "b": "import skylb.c, os", "c": ""}) == []


def rust(directory: Path, files: dict[str, str]) -> list[str]:
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return [circles.text_of(circle) for circle in circles.circles(circles.rust_graph(directory))]


@pytest.mark.parametrize(
    "text",
    [
        "use crate::x::b::B;",
        "use crate::x::{c::C, b::{self, B}};",
        "use super::b::B as Other;",
        "use super::{b, c};",
        "use crate::x::b::*;",
        "fn f(x: &crate::x::b::B) {}",
        "fn f() -> super::b::B { todo() }",
        "use self::super::b;",
        "use crate::x::Handed;",
        "use crate::x::Other;",
    ],
)
def test_every_form_of_path_counts(tmp_path: Path, text: str) -> None:
    files = {
        "lib.rs": "mod x;",
        "x/mod.rs": "mod a;\nmod b;\nmod c;\npub use b::Handed;\npub(crate) use self::b::{B, Other};\n",
        "x/a.rs": text,
        "x/b.rs": "use crate::x::a::A;\npub struct B; pub struct Handed; pub struct Other;",
        "x/c.rs": "",
    }
    assert rust(tmp_path, files) == ["x/a.rs -> x/b.rs -> x/a.rs"]


@pytest.mark.parametrize(
    "text",
    [
        "// use super::b::B;",
        'const TEXT: &str = "crate::x::b";',
        "use super::Parent;",
        "#[cfg(test)]\nmod tests {\n    use super::super::b::B;\n}",
        "use std::b::B;",
    ],
)
def test_what_names_no_sibling_is_no_circle(tmp_path: Path, text: str) -> None:
    files = {
        "lib.rs": "mod x;",
        "x/mod.rs": "mod a;\nmod b;\n#[cfg(test)]\nmod checks;\nuse a::A;\nstruct Parent;\n",
        "x/a.rs": text,
        "x/b.rs": "use super::a::A;",
        "x/checks.rs": "use super::a::A;",
    }
    assert rust(tmp_path, files) == []
