"""Tables and figures as Markdown."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def noted(rows: str, note: str) -> str:
    """A table and a note on it, in lines that never part a number from its per cent sign."""
    joined = note.replace(" %", "\u00a0%")
    return f"{rows}\n\n{textwrap.fill(joined, 128, break_long_words=False, break_on_hyphens=False)}".replace("\u00a0", " ")


def threads(count: int) -> str:
    return f"Measured with {count} thread{'s' if count > 1 else ''}."


def perplexity(value: float | None) -> str:
    """Two decimals where a model still works, and the order of magnitude where none does; a dash if it was not measured."""
    if value is None:
        return "-"
    if value < 1000:
        return f"{value:.2f}"
    return f"{value:,.0f}" if value < 1e6 else f"{value:.0e}".replace("e+0", "e")


def figure(value: float | None, digits: int = 4) -> str:
    """A number with that many decimals; a dash if it was not measured."""
    return "-" if value is None else f"{value:.{digits}f}"


def apart(value: float, other: float) -> str:
    """How far a value is from another: `6.2 % below`, `1.3 % above`."""
    return f"{abs(value / other - 1):.1%} {'below' if value < other else 'above'}".replace("%", " %")


def geometric_mean(values: Sequence[float]) -> float:
    return math.exp(sum(math.log(value) for value in values) / len(values))


def significant(value: float) -> str:
    """Two digits, and more before the point: 0.0070, 1.4, 57."""
    return f"{value:.{max(0, 1 - math.floor(math.log10(value)))}f}"


def worse(results: Mapping[str, Any], plain: Mapping[str, str], shown: Callable[[str], str], of: str) -> str:
    """Sentences on which cells lose to their plain one, by text. plain: its name by theirs. of: what they have alike."""
    note = ""
    for text, called in (("wikitext2", "WikiText-2"), ("ptb", "PTB")):
        found = {
            name: [results[each]["perplexity"][text] for each in (name, base)]
            for name, base in plain.items()
            if name in results and base in results
        }
        said = [
            f"{shown(name)} than {shown(plain[name])} ({perplexity(own)}, {perplexity(base)})"
            for name, (own, base) in found.items()
            if own > base
        ]
        if said:
            note += f" Worse on {called} than the plain method of {of} are {listed(said)}."
    return note


def listed(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
