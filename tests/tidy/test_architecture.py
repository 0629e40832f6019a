"""The rules that hold the house up, and proof that each notices when it is broken."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from skylb.config import Settings
from skylb.options import options
from tests.tidy import rules, rust_text, tables

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "python" / "skylb"
CORE = ROOT / "rust" / "src"

TASK_MAKERS = frozenset({"create_task", "ensure_future", "run_coroutine_threadsafe"})
ENVIRONMENT = frozenset({"environ", "environb", "getenv", "getenvb", "putenv"})


def tracked() -> list[Path]:
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listing.returncode:
        pytest.skip("not a git checkout: there is no list of files")
    return [path for name in listing.stdout.splitlines() if (path := ROOT / name).is_file()]


def test_the_engine_is_pure() -> None:
    assert rules.purity_faults(CORE) == []


IMPURITIES = (
    "use pyo3::prelude::*;",
    "let now = std::time::Instant::now();",
    "use std::time::SystemTime;",
    "use std::{fmt, time::Instant};",
    "let now = Instant::now();",
    "let key = std::env::var(name);",
    "use std::{fmt, env};",
    "use std::collections::HashMap;",
    "use std::collections::{BTreeMap, HashSet};",
    "let lines = HashMap::new();",
    "lines: HashMap<u64, Vec<(u32, u64)>>,",
    "seen: HashSet<(u64, u64)>,",
    "let state = std::hash::RandomState::new();",
    "std::thread::spawn(move || work());",
    'println!("{}", 1);',
    "let die = rand::random::<u64>();",
    "thread_local! { static X: u8 = 0; }",
    "let file = std::fs::File::open(path);",
    "use std::net::{IpAddr, TcpStream};",
)


def test_each_planted_impurity_is_found(tmp_path: Path) -> None:
    copy = tmp_path / "src"
    shutil.copytree(CORE, copy)
    source = (copy / "rng.rs").read_text()
    rooms = [room for room in rules.PURE_ROOMS if (copy / room).is_dir()]
    for index, planted in enumerate(IMPURITIES):
        for room in rooms:
            (copy / room / f"planted_{index}.rs").write_text(f"{source}\nfn planted() {{ {planted} }}\n")
    found = {fault.partition(":")[0] for fault in rules.purity_faults(copy)}
    expected = {f"{room}/planted_{index}.rs" for room in rooms for index in range(len(IMPURITIES))}
    assert expected - found == set()


def test_what_comments_and_strings_say_is_no_impurity(tmp_path: Path) -> None:
    harmless = (
        "// pyo3 and Instant stay out\nconst HELP: &str = \"no std::env here\";\nfn f<'a>(x: &'a str) {}\n"
    )
    (tmp_path / "engine").mkdir()
    text = harmless + "map: HashMap<u64, Vec<(u32, u64)>, FixedState>,\n"
    (tmp_path / "engine" / "a.rs").write_text(text)
    assert rules.purity_faults(tmp_path) == []


def test_tasks_are_created_in_one_module() -> None:
    assert rules.only_in_faults(PACKAGE, TASK_MAKERS, "tasks.py") == []


def test_the_environment_is_read_in_one_module() -> None:
    assert rules.only_in_faults(PACKAGE, ENVIRONMENT, "config.py") == []


def test_planted_tasks_and_environment_reads_are_found(tmp_path: Path) -> None:
    (tmp_path / "config.py").write_text("import os\nos.environ\n")
    (tmp_path / "other.py").write_text("from os import getenv\nimport asyncio\nasyncio.create_task(f())\n")
    assert rules.only_in_faults(tmp_path, ENVIRONMENT, "config.py") == [
        "other.py:1: getenv: only in config.py"
    ]
    assert rules.only_in_faults(tmp_path, TASK_MAKERS, "tasks.py") == [
        "other.py:3: create_task: only in tasks.py"
    ]


def test_modules_and_functions_stay_short() -> None:
    assert rules.size_faults(ROOT) == []


def test_planted_long_functions_are_found(tmp_path: Path) -> None:
    python = tmp_path / "python" / "long.py"
    rust = tmp_path / "rust" / "long.rs"
    for path in (python, rust):
        path.parent.mkdir()
    python.write_text("def long():\n" + "    x = 1\n" * 70 + "\n" * 430)
    body = "    step();\n" * 70
    rust.write_text(
        f"fn long(x: [u8; 4]) {{\n{body}}}\n#[cfg(test)]\nmod tests {{\n    fn t() {{\n{body}    }}\n}}\n"
    )
    assert rules.size_faults(tmp_path) == [
        "python/long.py: 501 lines: at most 500",
        "python/long.py:1: long has 71 lines: at most 70",
        "rust/long.rs:1: long has 72 lines: at most 70",
    ]


def test_one_word_per_concept() -> None:
    assert rules.word_faults(ROOT) == []


def test_planted_words_are_found(tmp_path: Path) -> None:
    path = tmp_path / "python" / "a.py"
    path.parent.mkdir()
    path.write_text("backend_url = 1\nclass BackendPool:\n    podium = 2\n")
    assert rules.word_faults(tmp_path) == [
        "python/a.py: BackendPool: say replica",
        "python/a.py: backend_url: say replica",
    ]


def test_every_setting_is_used() -> None:
    python = "\n".join(path.read_text() for path in PACKAGE.rglob("*.py") if path.name != "config.py")
    rust = "\n".join(path.read_text() for path in CORE.rglob("*.rs") if path.name != "config.rs")
    unused = []
    for option in options(Settings):
        name = option.path[-1]
        source = rust if option.path[0] == "engine" else python
        field = re.sub(r"_s$", "_n?s", name) if source is rust else name
        if not re.search(rf"\.{field}\b", source):
            unused.append(option.name)
    assert unused == []


def test_no_file_names_a_directory_of_a_machine() -> None:
    assert rules.path_faults(ROOT, tracked()) == []


def test_a_planted_directory_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_text("see /" + "home/somebody/x, not https://a/b and not $X/home/y\n")
    assert rules.path_faults(tmp_path, [path]) == ["a.md: /" + "home/somebody"]


# ------------------------------------------------------------------------------ documents


def test_every_make_target_has_a_help_line() -> None:
    targets = rules.make_targets((ROOT / "Makefile").read_text())
    assert [name for name, helped in targets.items() if not helped] == []


def test_a_variable_that_users_set_is_not_the_makefiles_own() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert rules.variable_faults(makefile) == []
    assert rules.variable_faults(f"{makefile}\nPROCESSES = -n 2\nFAULT_S := 1\n") == ["FAULT_S", "PROCESSES"]


def test_documents_name_only_make_targets_that_exist() -> None:
    targets = rules.make_targets((ROOT / "Makefile").read_text())
    documents = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")]
    unknown = {
        f"{path.name}: make {name}"
        for path in documents
        for name in rules.named_targets(path.read_text()) - targets.keys()
    }
    assert unknown == set()


def test_the_tables_of_settings_are_current() -> None:
    for path in tables.DOCUMENTS:
        text = path.read_text()
        assert tables.renewed(text) == text, f"{path.name}: run `make docs`"


def test_every_setting_is_in_a_table() -> None:
    text = (ROOT / "docs" / "CONFIGURATION.md").read_text()
    assert [option.flag for option in options(Settings) if f"\n| `{option.flag}`" not in text] == []


def test_the_readme_leaves_flags_to_their_page() -> None:
    text = (ROOT / "README.md").read_text()
    assert re.findall(r"^\| `--[a-z-]+`", text, re.MULTILINE) == []
    assert "](docs/CONFIGURATION.md)" in text


# ------------------------------------------------------------------------------ the router


def lines_of(room: Path) -> int:
    """Lines of the files of one package, without their tests."""
    return sum(rust_text.without_tests(path.read_text()).count("\n") for path in room.glob("*.rs"))


def test_the_router_composes_the_packages_and_owns_little_else() -> None:
    room = CORE / "engine" / "router"
    assert lines_of(room) <= 2_600, "a request's life"
    assert lines_of(room / "facts") <= 1_000, "facts about replicas and peers"
    struct = re.search(r"^pub struct Router \{\n(.*?)^\}", (room / "mod.rs").read_text(), re.M | re.S)
    assert struct is not None
    fields = re.findall(r"^    \w+:", struct[1], re.M)
    assert 1 <= len(fields) <= 10
