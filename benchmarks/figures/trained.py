"""Models small enough to train here, and a sentence encoder: heads removed, and fine-tuning."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from common.results import read
from figures.markdown import figure, listed, noted, table, threads

ARCHITECTURES, SEEDS = ("gpt2", "opt", "llama", "t5"), (0, 1, 2)
TUNED = {"dense": "dense", "tasp": "`tasp`", "snip": "`snip`", "magnitude-l2": "`magnitude-l2`", "random": "`random`"}
UNTUNED = TUNED | {
    "greedy-output": "`greedy-output`",
    "greedy-output, refitted": "refitted",
    "greedy-output, refit_producers": "`--refit-producers`",
}
SCORES = {
    "random": "random",
    "magnitude": "magnitude-l2",
    "wanda-sp": "wanda-sp",
    "newton": "newton",
    "compensated": "compensated",
}


def heads() -> str:
    """Perplexity of the language model, and similarity of the encoder's embeddings, without and with a refit."""
    results, parts = read("heads"), (0.25, 0.5)
    language = {(row["score"], row["removed"], row["compensated"]): row["perplexity"] for row in results["language"]}
    encoder = {(row["score"], row["removed"], row["refitted"]): row["similarity"] for row in results["encoder"]}
    rows = []
    for score, name in SCORES.items():
        line = [f"`{score}`"]
        for part in parts:
            line += [figure(language[name, part, False], 2), figure(language.get((name, part, True)), 2)]
        for part in parts:
            line += [figure(encoder.get((score, part, refitted)), 3) for refitted in (False, True)]
        rows.append(line)
    head = ["score"]
    for model in ("llama", "encoder"):
        for part in parts:
            head += [f"{model}, {part:.0%}".replace("%", " %"), "refitted"]
    return noted(table(head, rows), f"The dense llama is at {language['dense', 0.0, False]:.2f}.")


def experts() -> str:
    """Mean loss and its standard deviation over seeds, by how Gram matrices of experts are made."""
    rows = read("experts")["rows"]
    grams = ("shared", "routed", "borrowed")
    lines = []
    for method, count in dict.fromkeys((row["method"], row["windows"]) for row in rows if row["windows"]):
        same = [row for row in rows if (row["method"], row["windows"]) == (method, count)]
        found = [[row["loss"] for row in same if row["gram"] == gram] for gram in grams]
        short = statistics.mean(row["borrowing"] for row in same if row["gram"] == "borrowed")
        cells = [f"{statistics.mean(losses):.3f} ± {statistics.stdev(losses):.3f}" for losses in found]
        lines.append([f"`{method}`", str(count), f"{short:.0%}".replace("%", " %"), *cells])
    dense = statistics.mean(row["loss"] for row in rows if not row["windows"])
    table_of = table(["method", "windows", "experts with few tokens", *grams], lines)
    return noted(table_of, f"The dense models are at {dense:.3f}.")


def removed_experts() -> str:
    """By how much the loss rises, mean and standard deviation over seeds, and the error of mixtures, by which experts go and
    what is done for the others."""
    rows = read("expert_removal")["rows"]
    dense = {row["seed"]: row["loss"] for row in rows if not row["part"]}
    afterwards = tuple(dict.fromkeys(row["afterwards"] for row in rows if row["part"]))
    lines = []
    for part, score in dict.fromkeys((row["part"], row["score"]) for row in rows if row["part"]):
        same = [row for row in rows if (row["part"], row["score"]) == (part, score)]
        found = [[row for row in same if row["afterwards"] == name] for name in afterwards]
        rises = [[row["loss"] - dense[row["seed"]] for row in each] for each in found]
        errors = [statistics.mean(row["held-out"] for row in each) for each in found]
        cells = [
            f"{statistics.mean(rise):.3f} ± {statistics.stdev(rise):.3f}, {error:.3f}" for rise, error in zip(rises, errors)
        ]
        lines.append([f"{part:.0%}".replace("%", " %"), f"`{score}`", *cells])
    note = f"The dense models are at {statistics.mean(dense.values()):.3f}."
    return noted(table(["experts that go", "score", *afterwards], lines), note)


def tuned() -> str:
    """Losses after fine-tuning, and how many pairs of runs with the same seed TASP wins."""
    wins = [
        "{} of {} against `{}`".format(*pairs("after", "tasp", other), other) for other in ("snip", "magnitude-l2", "random")
    ]
    note = f"Of pairs of runs with the same model and seed, TASP has the lower loss in {listed(wins)}."
    return noted(losses("after", TUNED), note)


def untuned() -> str:
    """Losses before fine-tuning, and in how many pairs of runs refits end lower."""
    plain, refitted, producers = "greedy-output", "greedy-output, refitted", "greedy-output, refit_producers"
    lines = [
        "{} of {}".format(*pairs("before", first, second))
        for first, second in ((refitted, plain), (producers, plain), (producers, refitted))
    ]
    return noted(
        losses("before", UNTUNED),
        f"Of pairs of runs of `greedy-output` with the same model and seed, refitting lowers the "
        f"loss in {lines[0]}, `--refit-producers` lowers it in {lines[1]}, and in {lines[2]} the latter ends below the former.",
    )


def losses(key: str, methods: dict[str, str]) -> str:
    """Mean and standard deviation over seeds; a dash where a method was not run."""
    rows = []
    for architecture in ARCHITECTURES:
        line = [architecture]
        for method in methods:
            found = list(runs(architecture, method, key))
            line.append(f"{statistics.mean(found):.3f} ± {statistics.stdev(found):.3f}" if found else "-")
        rows.append(line)
    return table(["model", *methods.values()], rows)


def runs(architecture: str, method: str, key: str) -> Iterator[float]:
    """A figure of every seed. None are of T5 with producers refitted: it is pruned on the dense model's activations."""
    if (architecture, method) != ("t5", "greedy-output, refit_producers"):
        results = read("finetune")
        for seed in SEEDS:
            yield results[f"{architecture} {method} {seed}"][key]


def pairs(key: str, first: str, second: str) -> tuple[int, int]:
    """In how many pairs of runs the first is lower, and how many pairs there are."""
    found = [pair for each in ARCHITECTURES for pair in zip(runs(each, first, key), runs(each, second, key))]
    return sum(one < other for one, other in found), len(found)


def tuning_speed() -> str:
    """Time and memory of a step of fine-tuning."""
    results = read("finetune_speed")
    rows = [
        [row["model"], f"{row['parameters']:,}", f"{1000 * row['step_seconds']:.0f}", f"{row['bytes'] / 1e6:.0f}"]
        for row in results["rows"]
    ]
    return noted(table(["model", "parameters", "ms a step", "MB"], rows), threads(results["threads"]))
