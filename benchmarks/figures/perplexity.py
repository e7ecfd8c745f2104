"""Perplexity of models with zeros among their weights, ours beside the published codes."""

from __future__ import annotations

from typing import Any

from common.results import read
from figures.markdown import apart, figure, noted, perplexity, table

PATTERNS = {"50%": "50 %", "2:4": "2:4"}
OURS = {
    "wanda": "wanda",
    "sparsegpt": "sparsegpt",
    "l0": "l0",
    "fistapruner from wanda": "fistapruner from wanda",
    "fistapruner from sparsegpt": "fistapruner from sparsegpt",
    "fistapruner, refit": "fistapruner from sparsegpt, `--refit`",
}
TEXTS = ("wikitext2", "ptb")


def published() -> dict[str, dict[str, dict[str, Any]]]:
    """By pattern and name of the code: its figures on the protocol."""
    file = read("published")
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for row in file["perplexity"]["rows"]:
        found.setdefault(row["pattern"], {})[file["codes"][row["code"]]["name"]] = row
    return found


def both(cell: dict[str, Any]) -> list[str]:
    """Perplexity on the two texts; PTB where it was measured."""
    return [perplexity(cell["perplexity"]["wikitext2"]), figure(cell["perplexity"].get("ptb"), 1)]


def pruned() -> str:
    """The main table."""
    results, theirs = read("end_to_end"), published()
    rows = [["dense", "-", "-", *both(results["dense"])]]
    notes = []
    for pattern, shown in PATTERNS.items():
        for name, row in theirs[pattern].items():
            line = [f"{shown}: {name}, published", figure(row["mean_error"]), "-"]
            rows.append([*line, perplexity(row["wikitext2"]), figure(row["ptb"], 1)])
        for name, title in OURS.items():
            cell = results[f"{name} {pattern}"]
            errors = [figure(cell["report"][key]) for key in ("mean_error", "mean_heldout_error")]
            rows.append([f"{shown}: {title}", *errors, *both(cell)])
        best, alps = results[f"l0 {pattern}"]["perplexity"], theirs[pattern]["ALPS"]
        start, refitted = (
            results[f"{name} {pattern}"]["perplexity"] for name in ("fistapruner from sparsegpt", "fistapruner, refit")
        )
        wiki, ptb = (apart(best[text], alps[text]) for text in TEXTS)
        first = apart(start["wikitext2"], theirs[pattern]["SparseGPT"]["wikitext2"])
        second = apart(refitted["wikitext2"], start["wikitext2"])
        notes.append(
            f"At {shown}, `l0` ends {wiki} the published ALPS in perplexity on WikiText-2 and {ptb} it on PTB; FISTAPruner "
            f"from SparseGPT ends {first} the published SparseGPT on WikiText-2, and a refit takes it to {second} that."
        )
    return noted(table(["model", "error", "held-out", "WikiText-2", "PTB"], rows), " ".join(notes))


def corrections() -> str:
    """Where the target comes from, at three sparsities."""
    results, sparsities = read("end_to_end"), ("50%", "20%", "10%")
    names = ("no correction", "correction inside layers", "correction to the dense model")
    found = {name: [results[f"{sparsity} {name}"]["perplexity"]["wikitext2"] for sparsity in sparsities] for name in names}
    rows = [[name, *(perplexity(value) for value in values)] for name, values in found.items()]
    spread = [max(values) / min(values) - 1 for values in zip(*found.values())]
    note = "The highest of the three is above the lowest by " + ", ".join(
        f"{part:.1%} at {sparsity}".replace("%", " %") for part, sparsity in zip(spread, sparsities)
    )
    return noted(table(["correction", *(sparsity.replace("%", " %") for sparsity in sparsities)], rows), f"{note}.")


def summary() -> str:
    """What one has to know: ours beside the best that is published, at three ways of making a model sparse or small."""
    sparse, small, theirs = read("end_to_end"), read("structured"), published()
    rows = [["nothing (the dense model)", "-", *both(sparse["dense"])]]
    for pattern, what in (("50%", "50 % of the weights"), ("2:4", "2 of every 4 weights")):
        for name, row in theirs[pattern].items():
            rows.append([what, f"{name}, published code", perplexity(row["wikitext2"]), figure(row["ptb"], 1)])
        for name, title in (("fistapruner from sparsegpt", "`fistapruner`, ours"), ("l0", "`l0`, ours")):
            rows.append([what, title, *both(sparse[f"{name} {pattern}"])])
    for title, names in (
        ("FLAP, as in `gramian`, the better of two allocations", ("flap, numerical", "flap, uniform")),
        ("Wanda-sp, as in `gramian`, the better of two allocations", ("wanda-sp, numerical", "wanda-sp, uniform")),
        ("Numerical Pruning, the paper's scores and allocation", ("newton, numerical",)),
        ("`numerical`, ours", ("compensated, global",)),
    ):
        best = min((small[f"20% {name}"] for name in names), key=lambda cell: cell["perplexity"]["wikitext2"])
        rows.append(["20 % of the blocks' parameters, as whole heads and channels", title, *both(best)])
    return table(["removed", "by", "WikiText-2", "PTB"], rows)
