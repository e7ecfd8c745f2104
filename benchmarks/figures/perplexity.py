"""Perplexity of models with zeros among their weights, ours beside the published codes."""

from __future__ import annotations

from typing import Any

from common.results import read
from figures.markdown import apart, figure, listed, noted, perplexity, table

PATTERNS = {"50%": "50 %", "2:4": "2:4"}
OURS = {
    "wanda": "wanda",
    "sparsegpt": "sparsegpt",
    "l0": "l0",
    "fistapruner from wanda": "fistapruner from wanda",
    "fistapruner from sparsegpt": "fistapruner from sparsegpt",
    "fistapruner, refit": "fistapruner from sparsegpt, `--refit support`",
}
TARGETS = {
    "own": "what the operator itself gives (`own`)",
    "block": "what the dense block gives (`block`)",
    "model": "what the dense model gives (`model`)",
}
STRUCTURED = {  # cells of `structured.json`, of which the better one counts
    "Wanda-sp": ("wanda-sp, score", "wanda-sp, equal"),
    "FLAP": ("flap, score", "flap, equal"),
    "`numerical`": ("compensated, loss",),
}
TEXTS = ("wikitext2", "ptb")


def published() -> dict[str, dict[str, dict[str, Any]]]:
    """The figures of published codes on the protocol, by pattern and name of the code."""
    file = read("published")
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for row in file["perplexity"]["rows"]:
        found.setdefault(row["pattern"], {})[file["codes"][row["code"]]["name"]] = row
    return found


def both(cell: dict[str, Any]) -> list[str]:
    """Perplexity on the two texts; PTB where it was measured."""
    return [perplexity(cell["perplexity"]["wikitext2"]), figure(cell["perplexity"].get("ptb"), 1)]


def pruned() -> str:
    """Every method at two patterns, beside the published codes."""
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


def targets() -> str:
    """What an operator should match, at three sparsities."""
    results, sparsities = read("end_to_end"), ("50%", "20%", "10%")
    found = {
        name: [results[f"{sparsity} target {name}"]["perplexity"]["wikitext2"] for sparsity in sparsities] for name in TARGETS
    }
    rows = [[TARGETS[name], *(perplexity(value) for value in values)] for name, values in found.items()]
    spread = [max(values) / min(values) - 1 for values in zip(*found.values())]
    note = "The highest of the three is above the lowest by " + listed(
        [f"{part:.1%} at {sparsity}".replace("%", " %") for part, sparsity in zip(spread, sparsities)]
    )
    return noted(table(["target", *(sparsity.replace("%", " %") for sparsity in sparsities)], rows), f"{note}.")


def summary() -> str:
    """Our methods beside published ones that keep as much of the model."""
    sparse, small, theirs = read("end_to_end"), read("structured"), published()
    rows = [["nothing", "dense model", *both(sparse["dense"])]]
    for pattern, removed in (("50%", "50 % of the weights"), ("2:4", "2 of every 4 weights")):
        for name, row in theirs[pattern].items():
            rows.append([removed, f"{name}, published code", *both({"perplexity": row})])
        for name, title in (("fistapruner from sparsegpt", "`fistapruner`"), ("l0", "`l0`")):
            rows.append([removed, title, *both(sparse[f"{name} {pattern}"])])
    for ratio in ("20%", "50%"):
        for title, names in STRUCTURED.items():
            cells = [small[f"{ratio} {name}"] for name in names]
            best = min(cells, key=lambda cell: cell["perplexity"]["wikitext2"])
            rows.append([f"{ratio.replace('%', ' %')} of the blocks' parameters", title, *both(best)])
    note = "Wanda-sp and FLAP are those of `gramian`, each with the better of two allocations."
    return noted(table(["removed", "by", "WikiText-2", "PTB"], rows), note)
