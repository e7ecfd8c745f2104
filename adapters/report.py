"""What a run that zeroes weights did: a row per operator, the settings that repeat it, and the table that a person reads."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from gramian.adapters.html import html_table
from gramian.adapters.pages.domains import domain_figures, domain_lines
from gramian.adapters.pages.plots import plot
from gramian.extras import need
from gramian.tables import figure, lines_of, table

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

    from gramian.adapters.models.weight_parts import Parts

__all__ = ["BlockReport", "OperatorReport", "Report", "mean_error", "refits_counted", "refits_shown", "search_lines"]


@dataclass(frozen=True)
class OperatorReport:
    """One operator as it is stored, evaluated in float64 after the cast to the checkpoint's dtype.

    relative_error: |X* V^T - X W^T|^2 / |X W^T|^2 on the calibration tokens. heldout_error: the same on tokens that the
    method never saw, None without any. residual: |grad f| over the kept weights / |grad f(0)|, which is zero when the kept
    weights are the best for their positions; of S + B A along the positions of S and the matrices of the rank of B A, of A S B
    the largest of those of the three. detail:
    figures of the method, such as the LASSO gap before rounding. Where its block was refitted as a whole (`Report.blocks`),
    errors and residual are those before. parts: S, B and A of weights S + B A or A S B, of which `sparsity` counts S; None of
    others.
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
    parts: Parts | None = field(default=None, repr=False, compare=False)

    @property
    def figures(self) -> dict[str, Any]:
        """All of it but the parts, which are weights."""
        return {each.name: getattr(self, each.name) for each in fields(self) if each.name != "parts"}

    def __repr__(self) -> str:
        """One line: the name, the shape, the zeros and the error."""
        size = f"{self.shape[0]}x{self.shape[1]}"
        error = error_shown(self.relative_error, self.heldout_error)
        return f"OperatorReport({self.name}, {size}, {100 * self.sparsity:.1f} % zeros, {error})"


@dataclass(frozen=True)
class BlockReport:
    """One block that was refitted as a whole, before and after, as it is stored.

    error: the mean over tokens t of |S (b(x*_t) - T_t)|^2 / |T_t|^2 on the windows that were fitted, where a diagonal S makes
    all channels of the targets T as large. aside_error: the same on those that said when to end. heldout_error: the same on
    windows that the run never saw, None without any. epochs: how many of those `tried` the stored weights have behind them;
    after none the block is what it was.
    """

    name: str
    error: tuple[float, float]
    aside_error: tuple[float, float]
    heldout_error: tuple[float, float] | None
    epochs: int
    tried: int
    seconds: float


@dataclass(frozen=True)
class Report:
    """What a run did: `print` shows a table, a notebook shows it in HTML, `to_dict` and `to_dataframe` give the figures.

    operators: in the order pruned. settings: method, pattern, calibrate_on, target, calibration, versions, .... dense: names of
    operators that rules of sparsity leave as they are. blocks: those that were refitted as a whole.
    """

    operators: tuple[OperatorReport, ...]
    settings: dict[str, Any]
    seconds: float
    dense: tuple[str, ...] = ()
    blocks: tuple[BlockReport, ...] = ()

    def timed(self, seconds: float) -> Report:
        """The same report of a run that took `seconds`."""
        return replace(self, seconds=seconds)

    @property
    def sparsity(self) -> float:
        """Zeros over weights, of all pruned operators together."""
        sizes = [math.prod(operator.shape) for operator in self.operators]
        return sum(o.sparsity * size for o, size in zip(self.operators, sizes)) / sum(sizes)

    @property
    def mean_error(self) -> float:
        """Mean over operators of the calibration error."""
        return mean_error([operator.relative_error for operator in self.operators])

    @property
    def mean_heldout_error(self) -> float | None:
        """Mean over operators of the held-out error; None without held-out tokens."""
        errors = [o.heldout_error for o in self.operators if o.heldout_error is not None]
        return mean_error(errors) if errors else None

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings and lists, for JSON."""
        domains = domain_figures(self.settings, [operator.detail for operator in self.operators])
        return {
            "settings": self.settings,
            "seconds": self.seconds,
            **({"domains": domains} if domains else {}),
            "sparsity": self.sparsity,
            "mean_error": self.mean_error,
            "mean_heldout_error": self.mean_heldout_error,
            "dense": list(self.dense),
            "operators": [operator.figures for operator in self.operators],
            "refitted_blocks": [asdict(block) for block in self.blocks],
        }

    def to_dataframe(self) -> pandas.DataFrame:
        """A data frame with a row per operator, whose columns are its figures, those of the method included.

        ImportError where pandas is not installed.
        """
        need("report", ("pandas",), "a data frame")
        import pandas

        rows = [{name: value for name, value in o.figures.items() if name != "detail"} | o.detail for o in self.operators]
        return pandas.DataFrame(rows)

    def plot(self) -> Figure:
        """Draw errors and sparsity by block and kind, held-out against calibration error, and where the seconds went.

        A notebook shows the figure; `figure.savefig` writes it. ImportError where matplotlib is not installed.
        """
        return plot(self.to_dict())

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """The head of the table, and a row of text per operator, or of means and the sum of the seconds for many experts."""
        details = sorted({key for operator in self.operators for key in operator.detail})
        rows = []
        for name, places in lines_of([operator.name for operator in self.operators]):
            some = [self.operators[place] for place in places]
            rows.append(
                [
                    name,
                    f"{some[0].shape[0]}x{some[0].shape[1]}",
                    f"{100 * statistics.mean(o.sparsity for o in some):.2f}%",
                    figure(mean_error([o.relative_error for o in some])),
                    mean_shown([o.heldout_error for o in some]),
                    mean_shown([o.residual for o in some]),
                    *(mean_shown([o.detail.get(key) for o in some]) for key in details),
                    f"{sum(o.seconds for o in some):.1f}",
                ]
            )
        head = ["operator", "shape", "zeros", "error", "held-out", "KKT", *(key.replace("_", " ") for key in details), "s"]
        return head, rows

    def totals(self) -> str:
        """The line below the table, and one on a search."""
        means = f"mean error {figure(self.mean_error)}"
        if self.mean_heldout_error is not None:
            means += f", held-out {figure(self.mean_heldout_error)}"
        line = f"{len(self.operators)} operators, {100 * self.sparsity:.2f}% zeros, {means}, {self.seconds:.0f} s"
        line += refits_counted(self.blocks)
        if any("parameters" in o.detail for o in self.operators):  # in place of zeros
            held = sum(o.detail.get("parameters", (1 - o.sparsity) * math.prod(o.shape)) for o in self.operators)
            part = 100 * held / sum(math.prod(o.shape) for o in self.operators)
            line += f"; {held:.0f} parameters, nonzeros and factors, which are {part:.2f}% of those before"
        if self.dense:
            line += f"; {len(self.dense)} more operators remain dense, such as {self.dense[0]}"
        if short := [o.name for o in self.operators if o.detail.get("borrowed_tokens")]:
            line += f"; {len(short)} experts saw fewer tokens than they have inputs and borrowed, such as {short[0]}"
        return "\n".join([line, *domain_lines(self.settings, [o.detail for o in self.operators]), *search_lines(self.settings)])

    def __str__(self) -> str:
        """The table, that of blocks that were refitted, and the totals."""
        return "\n".join([table(*self.cells()), *refits_shown(self.blocks), self.totals()])

    def __repr__(self) -> str:
        """One line: the method, the number of operators, the zeros and the mean error."""
        method, count = self.settings.get("method", "no method"), len(self.operators)
        error = error_shown(self.mean_error, self.mean_heldout_error)
        return f"Report({method}, {count} operators, {100 * self.sparsity:.1f} % zeros, {error})"

    def _repr_html_(self) -> str:
        """What a notebook shows: the table of `str` in HTML, with the totals below it."""
        return html_table(*self.cells(), self.totals())


def search_lines(settings: Mapping[str, Any]) -> list[str]:
    """What a search of budgets has gained, where there was one."""
    if (search := settings.get("search")) is None:
        return []
    heldout = search["heldout"]
    name = "KL divergence" if search["measure"] == "output" else "relative error"
    gained = heldout["found - start"]
    error = "" if gained["standard_error"] is None else f" +- {figure(gained['standard_error'])}"
    return [
        f"search: {name} of the output to the dense model's on {heldout['windows']} held-out windows "
        f"{figure(heldout['uniform']['mean'])} with equal shares, {figure(heldout['start']['mean'])} at the start, "
        f"{figure(heldout['found']['mean'])} as found (difference {figure(gained['mean'])}{error}), "
        f"{figure(heldout['final']['mean'])} of this model; {search['accepted']} better choices in {search['rounds']} rounds, "
        f"{search['seconds']:.0f} s, {search['ended']}"
    ]


def refits_shown(blocks: Sequence[BlockReport]) -> list[str]:
    """A table of the blocks that were refitted, if any, between empty lines."""
    if not blocks:
        return []
    head = ["refitted block", "error", "after", "set aside", "after", "held-out", "after", "epochs", "s"]
    rows = [
        [
            each.name,
            *map(figure, (*each.error, *each.aside_error, *(each.heldout_error or (None, None)))),
            f"{each.epochs} of {each.tried}",
            f"{each.seconds:.1f}",
        ]
        for each in blocks
    ]
    return ["", table(head, rows), ""]


def refits_counted(blocks: Sequence[BlockReport]) -> str:
    """How many blocks are kept as they were refitted; nothing where none was."""
    return f"; {sum(each.epochs > 0 for each in blocks)} of {len(blocks)} blocks are kept refitted" if blocks else ""


def mean_shown(values: Sequence[float | None]) -> str:
    """The mean of those that were measured."""
    found = [value for value in values if value is not None]
    return figure(statistics.mean(found) if found else None)


def mean_error(errors: Sequence[float]) -> float:
    """Mean of the finite errors, since a layer without an output has no relative error; NaN where none is finite."""
    finite = [error for error in errors if math.isfinite(error)]
    return sum(finite) / len(finite) if finite else math.nan


def error_shown(calibration: float, heldout: float | None) -> str:
    """Write the held-out error where there is one, else the calibration error."""
    return f"error {figure(calibration)}" if heldout is None else f"held-out error {figure(heldout)}"
