"""What removing units did: one row per module, parameters before and after, and the table a person reads."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from gramian.adapters.report import mean_error
from gramian.tables import figure, table

__all__ = ["ModuleReport", "StructuredReport"]


@dataclass(frozen=True)
class ModuleReport:
    """One depth-2 module as it is stored, judged in float64 after the cast to the checkpoint's dtype.

    name: of its consumer. units, groups: before and after; units are hidden channels or query heads. masked_error:
    |X* V^T - X W^T|^2 / |X W^T|^2 on the calibration tokens for the dense weights without the removed columns;
    relative_error: the same for what is stored, bias included; heldout_error: on tokens that the method never saw, None
    without any. residual: |grad| over the kept weights / |grad at zero| of the damped problem that was solved, None where
    none was. detail: where the method has a relaxed mask, on dense inputs: `mask_error`, the relative error of the mask
    alone, and `mask_bound`, below which no mask of this cost gets. groups_of_heads: where the method compares heads, those that
    are connected by similarity, heads that stand alone included.
    """

    name: str
    units: tuple[int, int]
    groups: tuple[int, int]
    masked_error: float
    relative_error: float
    heldout_error: float | None
    residual: float | None
    status: str
    seconds: float
    detail: dict[str, float] = field(default_factory=dict)
    groups_of_heads: tuple[tuple[int, ...], ...] = ()
    recovered: bool | None = None
    unrecovered_error: float | None = None


@dataclass(frozen=True)
class StructuredReport:
    """modules in the order pruned. parameters: of the whole model before and after; block_parameters: of its blocks, which
    the ratio counts. Both are counted from the tensors. allocation: figures of the joint relaxation, see `Choice`.
    settings: method, ratio asked for, allocation, calibration, versions, ..."""

    modules: tuple[ModuleReport, ...]
    parameters: tuple[int, int]
    block_parameters: tuple[int, int]
    allocation: dict[str, float]
    settings: dict[str, Any]
    seconds: float

    @property
    def ratio(self) -> float:
        """Parameters removed over parameters inside the blocks before."""
        return 1 - self.block_parameters[1] / self.block_parameters[0]

    @property
    def mean_error(self) -> float:
        """Mean over modules of the calibration error."""
        return mean_error([module.relative_error for module in self.modules])

    @property
    def mean_heldout_error(self) -> float | None:
        """Mean over modules of the held-out error."""
        errors = [module.heldout_error for module in self.modules if module.heldout_error is not None]
        return mean_error(errors) if errors else None

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings and lists, for JSON."""
        return {
            "settings": self.settings,
            "seconds": self.seconds,
            "ratio": self.ratio,
            "parameters": list(self.parameters),
            "block_parameters": list(self.block_parameters),
            "mean_error": self.mean_error,
            "mean_heldout_error": self.mean_heldout_error,
            "allocation": self.allocation,
            "modules": [asdict(module) for module in self.modules],
        }

    def __str__(self) -> str:
        """One row per module, then the totals."""
        details = sorted({key for module in self.modules for key in module.detail})
        rows = [
            [
                m.name,
                f"{m.units[0]} -> {m.units[1]}",
                figure(m.masked_error),
                figure(m.relative_error),
                figure(m.heldout_error),
                figure(m.residual),
                *(figure(m.detail.get(key)) for key in details),
                f"{m.seconds:.1f}",
            ]
            for m in self.modules
        ]
        head = ["module", "units", "masked", "error", "held-out", "KKT", *(key.replace("_", " ") for key in details), "s"]
        means = f"mean error {figure(self.mean_error)}"
        if self.mean_heldout_error is not None:
            means += f", held-out {figure(self.mean_heldout_error)}"
        before, after = self.parameters
        lines = [
            table(head, rows),
            f"{len(rows)} modules, {before:,} -> {after:,} parameters, {100 * self.ratio:.2f}% of those in blocks removed, "
            f"{means}, {self.seconds:.0f} s",
        ]
        for module in self.modules:
            alike = [", ".join(map(str, group)) for group in module.groups_of_heads if len(group) > 1]
            if alike:
                lines.append(f"{module.name}: similar heads {'; '.join(alike)}")
        tried = [module.recovered for module in self.modules if module.recovered is not None]
        if tried:
            lines.append(f"recovery brought {sum(tried)} of {len(tried)} modules nearer to the dense ones; others go without")
        if self.allocation:
            figures = [f"{key.replace('_', ' ')} {figure(value)}" for key, value in self.allocation.items()]
            lines.append(f"masks of all modules together: {', '.join(figures)}")
        return "\n".join(lines)
