"""Figures of what a run would take: a row per operator, memory at the peak, time."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from gramian.tables import lines_of, table

__all__ = ["Estimate", "EstimatedOperator", "Rates"]


@dataclass(frozen=True)
class Rates:
    """Operations per second of matrix products in float32 and float64; a multiply-add counts as two."""

    single: float
    double: float

    @classmethod
    def measured(cls, device: torch.device, size: int = 768, seconds: float = 0.1) -> Rates:
        """Measure products on `device` for about `seconds` in each precision."""
        found = []
        for dtype in (torch.float32, torch.float64):
            matrix = torch.ones(size, size, dtype=dtype, device=device)
            float((matrix @ matrix)[0, 0])  # the first product also starts threads
            products, started = 0, time.perf_counter()
            while (elapsed := time.perf_counter() - started) < seconds or products == 0:
                float((matrix @ matrix)[0, 0])  # reading one number waits for the GPU
                products += 1
            found.append(2 * size**3 * products / elapsed)
        return cls(*found)


@dataclass(frozen=True)
class EstimatedOperator:
    """One operator: its name, the shape of its weight (q, p), and the seconds its solver takes. fixed, turned: those of
    them that it takes however few rows there are, for what it does with the Gram matrix alone: every process that has rows, and
    one for all of them."""

    name: str
    shape: tuple[int, int]
    seconds: float
    fixed: float = 0.0
    turned: float = 0.0


@dataclass(frozen=True)
class Estimate:
    """What a run would take. memory: bytes by what holds them, all at once at the peak. seconds: by what takes them, solvers
    included. covered: the share of the weights inside the blocks that operators hold, or units that can be removed."""

    operators: tuple[EstimatedOperator, ...]
    memory: Mapping[str, int]
    seconds: Mapping[str, float]
    rates: Rates
    covered: float

    @property
    def peak(self) -> int:
        """Bytes at the peak."""
        return sum(self.memory.values())

    @property
    def duration(self) -> float:
        """Seconds in all."""
        return sum(self.seconds.values())

    def __repr__(self) -> str:
        return f"Estimate({len(self.operators)} operators, {self.peak / 2**20:.0f} MiB at the peak, {self.duration:.0f} s)"

    def __str__(self) -> str:
        """Tables with a row per operator, and of where memory and time go."""
        operators = [
            [name, "{}x{}".format(*self.operators[places[0]].shape), f"{sum(self.operators[o].seconds for o in places):.1f}"]
            for name, places in lines_of([o.name for o in self.operators])
        ]
        memory = [[name, f"{size / 2**20:.0f}"] for name, size in {**self.memory, "peak": self.peak}.items()]
        seconds = [[name, f"{spent:.0f}"] for name, spent in {**self.seconds, "total": self.duration}.items()]
        weights = sum(math.prod(o.shape) for o in self.operators)
        return "\n".join(
            [
                table(["operator", "shape", "solver s"], operators),
                f"{len(self.operators)} operators, {weights:,} weights",
                f"{100 * self.covered:.1f} % of the weights inside the blocks can be pruned\n",
                table(["memory at the peak", "MiB"], memory),
                "",
                table(["time", "s"], seconds),
                f"\nThese are estimates, from {self.rates.single / 1e9:.0f} (float32) and {self.rates.double / 1e9:.0f} "
                "(float64) GFLOP/s measured just now; expect them within a factor of two.",
            ]
        )
