"""The table of errors is exhaustive, in both directions."""

from pathlib import Path

from skylb import _core
from skylb.data import failures
from tests.tidy import errors

ROOT = Path(__file__).resolve().parents[2]
CORE = ROOT / "rust" / "src"
PYTHON = [ROOT / "python" / "skylb" / part for part in ("data", "admin")]

CODES = {code for code, *_ in _core.errors()}


def test_rust_answers_nothing_that_is_not_in_the_table() -> None:
    found = errors.rust_answers(CORE)
    assert len(found) > 30
    assert found - CODES == set()


def test_python_answers_nothing_that_is_not_in_the_table() -> None:
    found = errors.python_answers(*PYTHON)
    assert len(found) > 16
    assert found - CODES == set()


def test_only_the_table_says_the_status_of_a_code() -> None:
    assert errors.statuses(*PYTHON) == set()


def test_what_ends_an_attempt_or_the_process_is_in_the_table() -> None:
    codes = {code for _, code, _ in failures.FAILURES.values()}
    codes |= {failures.SHUTTING_DOWN[0], failures.SHORT[0]}
    assert codes - CODES == set()


def test_every_row_of_the_table_can_be_answered() -> None:
    assert CODES - errors.literals(CORE, *PYTHON) == set()


def test_a_planted_code_is_found(tmp_path: Path) -> None:
    (tmp_path / "planted.rs").write_text('fn f() -> E { RequestError::new(\n    "teapot", "no") }\n')
    (tmp_path / "planted.py").write_text('raise refusal("teapot", "no")\n')
    assert errors.rust_answers(tmp_path) == {"teapot"}
    assert errors.python_answers(tmp_path) == {"teapot"}
    assert errors.statuses(tmp_path) == set()


def test_a_planted_status_is_found(tmp_path: Path) -> None:
    (tmp_path / "planted.py").write_text('raise Refusal(418, "teapot", "no")\n')
    assert errors.statuses(tmp_path) == {418}


def test_a_code_in_a_comment_or_a_test_is_none(tmp_path: Path) -> None:
    test = '#[cfg(test)]\nmod tests {\n    Refusal::new("teapot", "")\n}\n'
    text = f'// RequestError::new("teapot")\n{test}'
    (tmp_path / "a.rs").write_text(text)
    assert errors.rust_answers(tmp_path) == set()
    assert "teapot" not in errors.literals(tmp_path, tmp_path)
