"""What training after pruning did: losses on the way, and what became of the zeros."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gramian.tables import table

__all__ = ["TuneReport"]


@dataclass(frozen=True)
class TuneReport:
    """settings: what was trained, on what. checks: held-out losses on the way; the first is of the model as it came, the last
    of the weights as they are stored. best: the number of the check whose weights were kept. zeros: of the operators, before
    and after. steps, tokens: how many were done and read. seconds: how long it took. writing: how much of that the teacher
    wrote for. stopped: why it ended."""

    settings: Mapping[str, Any]
    checks: Sequence[Mapping[str, float]]
    best: int
    zeros: tuple[int, int]
    steps: int
    tokens: int
    seconds: float
    writing: float
    stopped: str

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings, lists and dicts."""
        return {
            "settings": dict(self.settings),
            "checks": [dict(each) for each in self.checks],
            "best": self.best,
            "zeros": {"before": self.zeros[0], "after": self.zeros[1]},
            "steps": self.steps,
            "tokens": self.tokens,
            "seconds": self.seconds,
            "writing": self.writing,
            "stopped": self.stopped,
        }

    def __str__(self) -> str:
        taught = any("distillation" in each for each in self.checks)
        columns = ["step", "seconds", "loss", "next token", *(["divergence"] if taught else []), ""]
        rows = []
        for number, each in enumerate(self.checks):
            last = number == len(self.checks) - 1
            remark = "as stored" if last else "as it came" if number == 0 else ""
            remark += (", kept" if remark else "kept") if number == self.best and not last else ""
            figures = [each["loss"], each["next_token"], *([each["distillation"]] if taught else [])]
            rows.append([f"{each['step']:.0f}", f"{each['seconds']:.0f}", *(f"{figure:.4f}" for figure in figures), remark])
        before, after = self.zeros
        zeros = f"zeros {before:,} before, {after:,} after" if before or after else "no zeros"
        written = f" ({self.writing:.0f} s of them for what the teacher wrote)" if self.writing else ""
        return (
            f"held-out loss in nats per token, on {self.settings['heldout']} windows\n{table(columns, rows)}\n"
            f"{self.steps} steps, {self.tokens:,} tokens, {self.seconds:.0f} s{written}, {self.stopped}; {zeros}"
        )
