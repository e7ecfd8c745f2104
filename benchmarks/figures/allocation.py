"""Budgets divided among operators and modules: of a small llama over bytes, and of gemma-3-270m."""

from __future__ import annotations

import math
import statistics
from typing import Any

from common.results import read
from figures.markdown import figure, noted, perplexity, table

AMOUNTS = ("50%", "60%", "70%")
WEIGHTS = {"uniform": "`uniform`", "owl": "`owl`", "search": "`search`"}
UNITS = {"equal": "`equal`", "loss": "`loss`", "search": "`search`"}
KINDS = (("weights, `l0`", "l0", WEIGHTS), ("heads and channels, `numerical`", "numerical", UNITS))


def small() -> str:
    """Divergence with the paired standard error of its difference from the first allocation, and perplexity, by amount."""
    results, rows = read("allocation"), []
    for kind, method, names in KINDS:
        first = next(iter(names))
        for name, shown in names.items():
            line = [kind, shown]
            for amount in AMOUNTS:
                cell, base = (results[f"{amount} {method}, {each}"] for each in (name, first))
                error = "" if name == first else f" ± {paired_error(cell, base):.4f}"
                line += [f"{figure(cell['divergence'])}{error}", figure(cell["perplexity"], 3)]
            rows.append(line)
    head = ["removed", "allocation"]
    for amount in AMOUNTS:
        head += [f"{amount}: KL".replace("%", " %"), "perplexity"]
    some = next(iter(results.values()))
    seconds = [
        cell["report"]["settings"]["search"]["seconds"] for cell in results.values() if "search" in cell["report"]["settings"]
    ]
    return noted(
        table(head, rows),
        "KL(dense || pruned) in nats per byte; after ± is the standard error, over runs of eight windows, of its difference "
        f"from the first row of the kind. The dense model is at {some['dense_perplexity']:.3f}. Searches ended by "
        f"themselves, after {min(seconds):.0f} to {max(seconds):.0f} s on one thread.",
    )


def spread(seconds: list[float]) -> str:
    """From the fewest to the most minutes."""
    fewest, most = f"{min(seconds) / 60:.0f}", f"{max(seconds) / 60:.0f}"
    return fewest if fewest == most else f"{fewest} to {most}"


def paired_error(cell: dict[str, Any], other: dict[str, Any]) -> float:
    """The standard error of the mean difference, over runs of eight windows."""
    pairs = zip(cell["divergence_by_eight"], other["divergence_by_eight"], strict=True)
    differences = [one - two for one, two in pairs]
    return statistics.stdev(differences) / math.sqrt(len(differences))


def whole() -> str:
    """Perplexity of gemma-3-270m by amount and allocation; what was not searched is from the structured cells."""
    searched, others, rows, seconds = read("allocation_model"), read("structured"), [], []
    for kind, method, names in KINDS:
        for amount in ("20%", "50%", *AMOUNTS[1:]):
            for name, shown in names.items():
                cell = searched.get(f"{amount} {method}, {name}") or others.get(f"{amount} compensated, {name}")
                if cell is None or (method == "l0" and f"{amount} l0, {name}" not in searched):
                    continue
                row, found = [kind, amount.replace("%", " %"), shown], cell["report"]["settings"].get("search")
                row += [perplexity(cell["perplexity"][text]) for text in ("wikitext2", "ptb")]
                if found:
                    seconds.append(found["seconds"])
                    apart = found["heldout"]
                    change, error = apart["found - start"]["mean"], apart["found - start"]["standard_error"]
                    row.append(f"{figure(apart['start']['mean'])}, {change:+.3f} ± {error:.3f}")
                rows.append([*row, "-"][:6])
    head = ["removed", "part", "allocation", "WikiText-2", "PTB", "KL of the start, and what the search changes"]
    return noted(
        table(head, rows),
        "KL(dense || pruned) in nats on eight windows that neither calibrated nor chose, with the paired standard error of its "
        f"change. Searches took {spread(seconds)} minutes on one thread, beside other work.",
    )
