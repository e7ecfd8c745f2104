"""What a model costs: tokens a second, memory, parameters, bytes on the disk, seconds to load."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from gramian.adapters.html import html_table
from gramian.adapters.measure.intervals import Interval
from gramian.tables import table

__all__ = ["ModelCost", "Rate", "Speed"]

Phase = Literal["prefill", "decode"]


@dataclass(frozen=True)
class ModelCost:
    """parameters: numbers in the parameters, tied ones once. active: those that a token meets, fewer in mixtures of experts.

    bytes_on_disk: of the files that hold its weights, None where that is not known. load_seconds: from files to a model that
    is ready, once. loaded_bytes: memory after the load, before anything ran. peak_bytes: memory at the peak, the load included.
    What memory is, `memory` of the settings says; None where the system does not tell."""

    model: str
    parameters: int
    active: int
    bytes_on_disk: int | None
    load_seconds: float
    loaded_bytes: int | None
    peak_bytes: int | None

    def cells(self) -> list[str]:
        """The row of text."""
        sizes = [
            "-" if size is None else f"{size / 2**20:,.0f} MiB"
            for size in (self.bytes_on_disk, self.loaded_bytes, self.peak_bytes)
        ]
        return [self.model, f"{self.parameters:,}", f"{self.active:,}", *sizes, f"{self.load_seconds:.1f} s"]


@dataclass(frozen=True)
class Rate:
    """Tokens a second. phase: `prefill`, prompts of `length` tokens read at once, or `decode`, tokens made one after the other
    after such prompts, each of `batch` at a time.

    model, against: the median and the quartiles over runs. ratio: those of model / against, run by run, as they took turns.
    seconds: what every run took, of the model and of the other."""

    phase: Phase
    batch: int
    length: int
    model: Interval
    against: Interval | None
    ratio: Interval | None
    seconds: tuple[tuple[float, ...], ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, strings and lists."""
        intervals = {"model": self.model, "against": self.against, "ratio": self.ratio}
        return {
            "phase": self.phase,
            "batch": self.batch,
            "length": self.length,
            **{name: None if each is None else each.as_dict() for name, each in intervals.items()},
            "seconds": [list(each) for each in self.seconds],
        }

    def cells(self) -> list[str]:
        """The row of text."""
        intervals = ["-" if each is None else str(each) for each in (self.model, self.against, self.ratio)]
        return [self.phase, str(self.batch), str(self.length), *intervals]


COSTS = ["model", "parameters", "active", "on disk", "loaded", "peak memory", "load"]
RATES = ["tokens/s", "batch", "length", "model", "against", "ratio"]


@dataclass(frozen=True)
class Speed:
    """models: what each costs. rates: how fast they are. settings: what that depends on: device, threads, dtype, versions, how
    many runs, how memory is counted."""

    models: tuple[ModelCost, ...]
    rates: tuple[Rate, ...]
    settings: Mapping[str, Any]
    seconds: float = field(compare=False)

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, strings and lists, for JSON."""
        return {
            "models": [asdict(each) for each in self.models],
            "rates": [each.as_dict() for each in self.rates],
            "settings": dict(self.settings),
            "seconds": self.seconds,
        }

    def table(self) -> str:
        """Two tables for a person: what every model costs, and how fast it is."""
        costs, rates = [each.cells() for each in self.models], [each.cells() for each in self.rates]
        return f"{table(COSTS, costs)}\n\n{table(RATES, rates)}"

    def remarks(self) -> str:
        """What the figures are."""
        known = self.settings
        return (
            f"medians of {known['repeats']} runs in turn, in brackets quartiles; decode makes {known['tokens']} tokens after "
            f"each prompt, greedily and with a cache\n{known['device']}, {known['threads']} threads, {known['dtype']}; memory "
            f"is {known['memory']}"
        )

    def __str__(self) -> str:
        """The tables, and what their figures are."""
        return f"{self.table()}\n{self.remarks()}"

    def __repr__(self) -> str:
        """One line: the models, and how many rates there are."""
        return f"Speed({' and '.join(each.model for each in self.models)}, {len(self.rates)} rates, {self.seconds:.0f} s)"

    def _repr_html_(self) -> str:
        """What a notebook shows: both tables in HTML."""
        costs = html_table(COSTS, [each.cells() for each in self.models], "")
        return costs + html_table(RATES, [each.cells() for each in self.rates], self.remarks())
