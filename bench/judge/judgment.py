"""What the judge has found so far."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.judge.runs import Figures, Task


@dataclass
class Judgment:
    """All figures: by case, share and variant a row per seed.

    Attributes:
        about: how they were made.
        capacity: sessions per second, by case.
        tuned: settings by case and policy.
        rows: by case, share and variant; ``seed`` is one of each row's figures.
    """

    about: dict[str, Any] = field(default_factory=dict)
    capacity: dict[str, float] = field(default_factory=dict)
    tuned: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    rows: dict[str, dict[str, dict[str, list[Figures]]]] = field(default_factory=dict)

    def add(self, task: Task, found: Sequence[Figures]) -> None:
        """Puts a task's figures where they belong."""
        shares = self.rows.setdefault(task.case.name, {}).setdefault(f"{task.share:.0%}", {})
        for variant, figures in zip(task.variants, found, strict=True):
            shares.setdefault(variant.name, []).append({"seed": float(task.seed)} | figures)
