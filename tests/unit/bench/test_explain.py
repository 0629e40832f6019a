"""The benchmark of what explains a request runs the balancers that this checkout can make."""

from pathlib import Path

from bench import explain
from bench.paired import Change
from bench.processes import Process, Proxy


def command(change: Change, tmp_path: Path) -> list[str]:
    proxy = Proxy("skylb", 1, Process("skylb", ["python"], frozenset(), tmp_path / "log"))
    change(proxy, tmp_path)
    return proxy.process.command


def test_all_has_the_flags_of_each(tmp_path: Path) -> None:
    changes = explain.variants("http://127.0.0.1:4318", Path("/elsewhere"))
    found = {name: command(change, tmp_path) for name, change in changes.items()}
    assert found["off"] == ["python", *explain.POLICY]
    assert found["before"] == ["/elsewhere/.venv/bin/python", *explain.POLICY]
    together = set(found["all"])
    for name in ("receipts", "spans", "shadow"):
        assert set(found.get(name, [])) <= together
    assert found["shadow"][-2:] == ["--shadow-policy", "prefix"]


def test_flags_that_a_checkout_lacks_are_noticed() -> None:
    assert explain.known(("--receipts", "9"), {"--receipts"})
    assert not explain.known(("--receipts", "9"), {"--policy"})


def test_the_table_compares_each_with_off() -> None:
    figures = {
        "off": [100.0, 200.0],
        "shadow": [101.0, 204.0],
        "all": [103.0, 206.0],
        "before": [100.0, 200.0],
    }
    lines = explain.table("work", figures)
    assert any(line.startswith("  shadow / off") and "1.015" in line for line in lines)
    assert any(line.startswith("  all / off") and "(target <= 1.05)" in line for line in lines)
    assert any(line.startswith("  off / before") and "1.000" in line for line in lines)
    assert not any("receipts" in line for line in lines)
