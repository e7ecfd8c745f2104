"""What a run did: one row per operator, the settings it can be repeated with, and the table a person reads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from gramian.tables import figure, table

__all__ = ["OperatorReport", "Report", "mean_error"]


@dataclass(frozen=True)
class OperatorReport:
    """One operator as it is stored, judged in float64 after the cast to the checkpoint's dtype.

    relative_error: |X* V^T - X W^T|^2 / |X W^T|^2 on the calibration tokens; heldout_error: the same on tokens that the
    method never saw, None without any. residual: |grad f| over the kept weights / |grad f(0)|, zero when the kept
    weights are the best for their positions. detail: figures of the method, such as the LASSO gap before rounding.
    """

    name: str
    shape: tuple[int, int]
    pattern: str
    sparsity: float
    relative_error: float
    heldout_error: float | None
    residual: float
    status: str
    seconds: float
    detail: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """operators in the order pruned; settings: method, pattern, calibrate_on, target, calibration, versions, ..."""

    operators: tuple[OperatorReport, ...]
    settings: dict[str, Any]
    seconds: float

    @property
    def sparsity(self) -> float:
        """Zeros over weights, all pruned operators together."""
        sizes = [math.prod(operator.shape) for operator in self.operators]
        return sum(o.sparsity * size for o, size in zip(self.operators, sizes)) / sum(sizes)

    @property
    def mean_error(self) -> float:
        """Mean over operators of the calibration error."""
        return mean_error([operator.relative_error for operator in self.operators])

    @property
    def mean_heldout_error(self) -> float | None:
        """Mean over operators of the held-out error."""
        errors = [o.heldout_error for o in self.operators if o.heldout_error is not None]
        return mean_error(errors) if errors else None

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings and lists, for JSON."""
        return {
            "settings": self.settings,
            "seconds": self.seconds,
            "sparsity": self.sparsity,
            "mean_error": self.mean_error,
            "mean_heldout_error": self.mean_heldout_error,
            "operators": [asdict(operator) for operator in self.operators],
        }

    def __str__(self) -> str:
        """One row per operator, then the totals."""
        details = sorted({key for operator in self.operators for key in operator.detail})
        rows = [
            [
                o.name,
                f"{o.shape[0]}x{o.shape[1]}",
                f"{100 * o.sparsity:.2f}%",
                figure(o.relative_error),
                figure(o.heldout_error),
                figure(o.residual),
                *(figure(o.detail.get(key)) for key in details),
                f"{o.seconds:.1f}",
            ]
            for o in self.operators
        ]
        head = ["operator", "shape", "zeros", "error", "held-out", "KKT", *(key.replace("_", " ") for key in details), "s"]
        means = f"mean error {figure(self.mean_error)}"
        if self.mean_heldout_error is not None:
            means += f", held-out {figure(self.mean_heldout_error)}"
        return f"{table(head, rows)}\n{len(rows)} operators, {100 * self.sparsity:.2f}% zeros, {means}, {self.seconds:.0f} s"


def mean_error(errors: Sequence[float]) -> float:
    """Mean of those that are finite: what has no output has no relative error. NaN where none is."""
    finite = [error for error in errors if math.isfinite(error)]
    return sum(finite) / len(finite) if finite else math.nan
