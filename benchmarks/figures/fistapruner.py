"""FISTAPruner's own tables, as far as one small model allows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.results import read
from figures.markdown import noted, table

METHODS = ("magnitude", "global magnitude", "wanda", "sparsegpt", "fistapruner")


def shown(results: Mapping[str, Any], name: str) -> str:
    """The perplexity of a cell; a dash where it was not measured."""
    cell = results.get(name)
    return "-" if cell is None else f"{cell['perplexity']['bytes']:.3f}"


def by_sparsity() -> str:
    """Figure 3: perplexity by sparsity and method."""
    results = read("fistapruner_tables")
    amounts = [name.split()[2] for name in results if name.startswith("figure 3") and name.endswith(" wanda")]
    rows = [
        [f"`{method}`" if " " not in method else method, *(shown(results, f"figure 3, {each} {method}") for each in amounts)]
        for method in METHODS
    ]
    note = f"The dense model is at {shown(results, 'dense')}. Global magnitude has one threshold for all operators."
    return noted(table(("method", *(each.replace("%", " %") for each in amounts)), rows), note)


def by_start() -> str:
    """Tables 3 and 6, and Algorithm 1 as printed and as mended."""
    results = read("fistapruner_tables")
    amounts = ("25%", "50%", "2:4")
    rows = [
        [name, *(shown(results, f"{where}, {amount} {cell}") for amount in amounts)]
        for name, where, cell in (
            ("magnitude (Table 6)", "table 6", "magnitude"),
            ("FISTAPruner from magnitude", "table 6", "fistapruner from magnitude"),
            ("FISTAPruner from dense weights", "table 6", "fistapruner from dense"),
            ("Wanda + DSnoT (Table 3)", "table 3", "wanda + dsnot"),
            ("FISTAPruner from SparseGPT, the default", "table 3", "fistapruner"),
            ("Algorithm 1 as printed, from Wanda", "algorithm 1", "as printed"),
            ("Algorithm 1 mended, from Wanda", "algorithm 1", "mended"),
        )
    ]
    corrected = ", ".join(
        f"{shown(results, f'table 11, 5% corrected {each}')} {each}" for each in ("in blocks", "in the model")
    )
    note = (
        "With 5 % zeros (Table 11) perplexity is "
        f"{shown(results, 'table 11, 5% corrected none')} where errors of earlier operators are not corrected, {corrected}."
    )
    return noted(table(("method", *(each.replace("%", " %") for each in amounts)), rows), note)


def by_calibration() -> str:
    """Figure 4(b): perplexity at half zeros by calibration windows."""
    results = read("fistapruner_tables")
    counts = [name.split()[2] for name in results if name.startswith("figure 4b") and name.endswith(" wanda")]
    rows = [
        [f"`{method}`", *(shown(results, f"figure 4b, {each} windows {method}") for each in counts)] for method in METHODS[2:]
    ]
    return table(("method", *(f"{each} window{'s' if each != '1' else ''}" for each in counts)), rows)
