"""What a removal of units did: one row per module, parameters before and after, and the table that a person reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gramian.adapters.html import html_table
from gramian.adapters.pages.domains import domain_figures, domain_lines
from gramian.adapters.pages.plots import plot
from gramian.adapters.report import BlockReport, mean_error, refits_counted, refits_shown, search_lines
from gramian.extras import need
from gramian.tables import figure, table

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

__all__ = ["ModuleReport", "StructuredReport"]

LISTED = 256  # units of a module, heads as a rule, whose numbers stand in JSON; the many channels are told by their count


@dataclass(frozen=True)
class ModuleReport:
    """One module f(x) = sum_u C_u h(P_u x) as it is stored, evaluated in float64 after the cast to the checkpoint's dtype.

    name: that of its consumer. units, groups: their numbers before and after; units are hidden channels or query heads.
    masked_error: |X* V^T - X W^T|^2 / |X W^T|^2 on the calibration tokens for the dense weights without the removed columns.
    relative_error: the same for what is stored, bias included. heldout_error: the same on tokens that the method never saw,
    None without any. residual: |grad| over the kept weights / |grad at zero| of the damped problem that was solved, None
    where none was. detail: where the method has a relaxed mask, on dense inputs, `mask_error`, the relative error of the mask
    alone, and `mask_bound`, a lower bound for it that holds for every mask of this cost. groups_of_heads: where the method
    compares heads, those that are connected by similarity, single heads included. recovered: whether the refit of the
    producers was kept, None where there was none; unrecovered_error: the relative error without it. Where its block was
    refitted as a whole (`StructuredReport.blocks`), errors and residual are those before.
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

    def __repr__(self) -> str:
        """One line: the name, the units before and after, and the error."""
        return f"ModuleReport({self.name}, {self.units[0]} -> {self.units[1]} units, error {figure(self.relative_error)})"


@dataclass(frozen=True)
class StructuredReport:
    """One run that removed units: its modules in the order pruned, its totals, and its settings.

    parameters: those of the whole model before and after; block_parameters: those of its blocks, which the ratio counts. Both
    are counted from the tensors. allocation: figures of the joint relaxation, see `Selection`. settings: method, requested
    ratio, allocation, calibration, versions, and everything else that the run can be repeated with. keep: the units that every
    module keeps, by the name of its consumer. blocks: those that were refitted as a whole."""

    modules: tuple[ModuleReport, ...]
    parameters: tuple[int, int]
    block_parameters: tuple[int, int]
    allocation: dict[str, float]
    settings: dict[str, Any]
    seconds: float
    keep: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False, compare=False)
    blocks: tuple[BlockReport, ...] = ()

    def timed(self, seconds: float) -> StructuredReport:
        """The same report of a run that took `seconds`."""
        return replace(self, seconds=seconds)

    @property
    def ratio(self) -> float:
        """Removed parameters / parameters inside the blocks before."""
        return 1 - self.block_parameters[1] / self.block_parameters[0]

    @property
    def mean_error(self) -> float:
        """Mean over modules of the relative error on the calibration tokens."""
        return mean_error([module.relative_error for module in self.modules])

    @property
    def mean_heldout_error(self) -> float | None:
        """Mean over modules of the relative error on held-out tokens, None without any."""
        errors = [module.heldout_error for module in self.modules if module.heldout_error is not None]
        return mean_error(errors) if errors else None

    def to_dict(self) -> dict[str, Any]:
        """The report as plain numbers, strings and lists, for JSON."""
        domains = domain_figures(self.settings, [module.detail for module in self.modules])
        return {
            "settings": self.settings,
            "seconds": self.seconds,
            **({"domains": domains} if domains else {}),
            "ratio": self.ratio,
            "parameters": list(self.parameters),
            "block_parameters": list(self.block_parameters),
            "mean_error": self.mean_error,
            "mean_heldout_error": self.mean_heldout_error,
            "allocation": self.allocation,
            "kept": {name: np.asarray(kept).tolist() for name, kept in self.keep.items() if len(kept) <= LISTED},
            "modules": [asdict(module) for module in self.modules],
            "refitted_blocks": [asdict(block) for block in self.blocks],
        }

    def to_dataframe(self) -> DataFrame:
        """The report as a pandas `DataFrame` with one row per module.

        Numbers before and after have a column each, such as `units_before` and `units_after`, and so have the figures of
        `detail`. ImportError is raised where pandas is not installed.
        """
        need("report", ("pandas",), "a report as a data frame")
        import pandas

        rows = []
        for module in self.modules:
            row = asdict(module)
            for name in ("units", "groups"):
                row[f"{name}_before"], row[f"{name}_after"] = row.pop(name)
            rows.append(row | row.pop("detail"))
        return pandas.DataFrame(rows)

    def plot(self) -> Figure:
        """Draw errors and units that stay by block and kind, held-out against calibration error, and where the seconds went.

        A notebook shows the figure; `figure.savefig` writes it. ImportError where matplotlib is not installed.
        """
        return plot(self.to_dict())

    def __repr__(self) -> str:
        """One line: the number of modules, the fraction removed, and the mean error."""
        heldout = self.mean_heldout_error
        error = f"error {figure(self.mean_error)}" if heldout is None else f"held-out error {figure(heldout)}"
        removed = f"{100 * self.ratio:.1f} % of the blocks' parameters removed"
        return f"StructuredReport({len(self.modules)} modules, {removed}, {error})"

    def __str__(self) -> str:
        """One row per module, one per block that was refitted, then the totals."""
        return "\n".join([table(*self.cells()), *refits_shown(self.blocks), *self.totals()])

    def _repr_html_(self) -> str:
        """What a notebook shows: the table of `str` in HTML, with the totals below it."""
        return html_table(*self.cells(), "\n".join(self.totals()))

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """The head of the table, and one row of text per module."""
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
        return head, rows

    def totals(self) -> list[str]:
        """The lines below the table: totals of all modules, and what the method found."""
        means = f"mean error {figure(self.mean_error)}"
        if self.mean_heldout_error is not None:
            means += f", held-out {figure(self.mean_heldout_error)}"
        before, after = self.parameters
        lines = [
            f"{len(self.modules)} modules, {before:,} -> {after:,} parameters, {100 * self.ratio:.2f}% of those in blocks "
            f"removed, {means}, {self.seconds:.0f} s{refits_counted(self.blocks)}",
        ]
        if "removed_blocks" in self.settings:
            gone, output = self.settings["removed_blocks"], self.settings["output"]
            name = {"output": "KL divergence", "finercut": "angle", "hidden": "relative error"}[output["measure"]]
            lines.append(
                f"blocks removed, the first gone first: {', '.join(map(str, gone))}; {name} of the output to the dense model's "
                f"{figure(output['removed'])}, {figure(output['refitted'])} once refitted"
            )
        if "stream" in self.settings:
            lines.append(self.cost_of_width())
        lines += domain_lines(self.settings, [module.detail for module in self.modules])
        lines += search_lines(self.settings)
        if "widths" in self.settings:
            lines.append(self.cost_of_widths())
        for module in self.modules:
            similar = [", ".join(map(str, group)) for group in module.groups_of_heads if len(group) > 1]
            if similar:
                lines.append(f"{module.name}: similar heads {'; '.join(similar)}")
        if (heads := self.settings.get("similar_heads")) is not None:
            tau = self.settings["options"]["tau"]
            lines.append(f"{heads['removed']} of {heads['of']} heads are similar to a kept one at tau={tau:g}, and removed")
        tried = [module.recovered for module in self.modules if module.recovered is not None]
        if tried:
            kept = f"{sum(tried)} of {len(tried)} modules"
            lines.append(f"refitted producers brought {kept} nearer to the dense ones; the others keep the dense producers")
        if self.allocation:
            figures = [f"{key.replace('_', ' ')} {figure(value)}" for key, value in self.allocation.items()]
            lines.append(f"masks of all modules together: {', '.join(figures)}")
        return lines

    def cost_of_width(self) -> str:
        """What a narrower stream loses, and what others would."""
        stream = self.settings["stream"]
        return (
            "stream of {} -> {} directions: ".format(*stream["width"])
            + f"{figure(stream['lost'])} of it is outside them, {figure(stream['least'])} at least with one basis for all "
            f"places, {figure(stream['own_bases'])} with one for each"
        )

    def cost_of_widths(self) -> str:
        """What equal and rounded widths cost: the parameters that were to be removed, and those that are."""
        wanted, removed = (self.settings["widths"][name] for name in ("wanted", "removed"))
        multiple = self.settings.get("round_to")
        widths = "equal widths" if self.settings["allocation"] == "equal" else "widths"
        widths += "" if multiple is None else f", channels in multiples of {multiple}"
        off = 100 * (removed - wanted) / self.block_parameters[0]
        return f"{widths}: {removed:,} parameters removed of {round(wanted):,} to remove, {off:+.2f} points of those in blocks"
