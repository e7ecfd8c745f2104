"""Models made smaller: heads and hidden channels removed from gemma-3-270m."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.results import read
from figures.markdown import figure, noted, perplexity, table, threads, worse

RATIOS = ("20%", "50%")
METHODS = {
    "compensated, loss": "`numerical`, the default: `compensated` scores, allocation by `loss`",
    "compensated, loss, target_blend 1": "… the whole way to the dense model's outputs, `target_blend` 1",
    "compensated, equal": "… `equal`",
    "compensated, equal, round_to 64": "… `equal`, multiples of 64 channels",
    "compensated, score": "… `score`: prices as they are",
    "newton, loss": "`newton` scores, `loss`, `target_blend` 1",
    "newton, equal": "… `equal`",
    "newton, score": "… `score`: the paper's rule",
    "newton, score, not compensated": "the paper's rule without compensation",
    "wanda-sp, score": "`wanda-sp`, `score`",
    "wanda-sp, equal": "`wanda-sp`, `equal`",
    "flap, equal": "`flap`, `equal`",
    "flap, score": "`flap`, `score`",
    "magnitude-l1, score": "`magnitude-l1`, `score`",
    "magnitude-l1, equal": "`magnitude-l1`, `equal`",
    "magnitude-l2, equal": "`magnitude-l2`, `equal`",
    "random, equal": "`random`, `equal`",
}
OUTPUTS = {
    "greedy-output, calibrated": "`greedy-output`",
    "greedy-output, calibrated, refit_producers": "… `--refit-producers`",
    "greedy-output, self": "`greedy-output --calibration self`",
    "greedy-output, self, refit_producers": "… `--refit-producers`",
    "greedy-output, identity, not compensated": "`greedy-output`, `moment=identity`, no compensation: without text",
    "tasp, score": "`tasp`",
    "snip, score": "`snip`",
    "llm-pruner, score": "`llm-pruner`",
}
OTHERS = {  # at 20 %, by the importances of others, or little by little
    "cfsp, angles": "`cfsp`",
    "cfsp, angles, activations": "… `--set within=activations`, as its released code",
    "cfsp, angles, in 4 steps": "… in four steps",
    "llm-pruner, score": "`llm-pruner`",
    "llm-pruner, score, vector": "… `--set importance=vector`",
    "wanda-sp, score": "`wanda-sp`, `score`",
    "wanda-sp, angles": "… `angles`",
    "compensated, loss": "`numerical`, `loss`",
    "compensated, angles, channels alone": "… `angles`, hidden channels alone",
}
PLAIN = {  # and what each stands beside
    "20% cfsp, angles": "20% wanda-sp, score",
    "20% cfsp, angles, activations": "20% cfsp, angles",
    "20% cfsp, angles, in 4 steps": "20% cfsp, angles",
    "20% llm-pruner, score, vector": "20% llm-pruner, score",
    "20% wanda-sp, angles": "20% wanda-sp, score",
    "20% compensated, angles, channels alone": "20% compensated, loss",
}
RIVALS = ("compensated, loss", "wanda-sp, score", "wanda-sp, equal", "flap, equal", "flap, score")
NOT_MEASURED = {"20% compensated, loss, target_blend 1"}


def removed() -> str:
    """Numerical Pruning and baselines, with every allocation."""
    results = read("structured")
    sizes = [results[f"{ratio} compensated, loss"]["report"]["parameters"] for ratio in RATIOS]
    off = max(
        abs(cell["report"]["ratio"] - cell["keywords"]["ratio"])
        for cell in results.values()
        if "round_to" not in cell["keywords"]
    )
    dense = read("end_to_end")["dense"]["perplexity"]
    return noted(
        sides(results, METHODS),
        f"The dense model has {sizes[0][0] / 1e6:.1f} million parameters and is at "
        f"{dense['wikitext2']:.2f} and {dense['ptb']:.2f}; {sizes[0][1] / 1e6:.1f} million remain at 20 % and "
        f"{sizes[1][1] / 1e6:.1f} million at 50 %, counted from the tensors. Of all runs without rounding, the one "
        f"farthest from its requested ratio is {100 * off:.4f} % off.",
    )


def widths() -> str:
    """Perplexity and speed of equal, rounded widths beside those that the loss divides."""
    results, timed = read("structured"), {row["model"]: row for row in read("structured_speed")["rows"]}
    base, rows = timed["dense"], []
    for name in ("dense", *(f"{ratio} compensated, {each}" for ratio in RATIOS for each in ("loss", "equal, round_to 64"))):
        found = read("end_to_end")["dense"]["perplexity"] if name == "dense" else results[name]["perplexity"]
        row = timed[name]
        faster = [f"{row[key] / base[key]:.2f}" for key in ("prefill_tokens_per_second", "decode_tokens_per_second")]
        shown = name.replace("%", " %").replace("compensated, ", "").replace("loss", "`loss`")
        shown = shown.replace("equal, round_to 64", "`equal --round-to 64`")
        rows.append([shown, f"{row['parameters']:,}", *(f"{found[text]:.2f}" for text in ("wikitext2", "ptb")), *faster])
    head = ["model", "parameters", "WikiText-2", "PTB", "prefill, times the dense model's", "decode"]
    return noted(table(head, rows), threads(read("structured_speed")["threads"]))


def outputs() -> str:
    """Greedy Output Approximation, TASP and its relatives."""
    results = read("structured")
    tasp = results["25% tasp, score"]["perplexity"]
    return noted(
        sides(results, OUTPUTS),
        f"At 25 %, the ratio of its paper's Table 3, TASP is at {perplexity(tasp['wikitext2'])} and {perplexity(tasp['ptb'])}.",
    )


def importances() -> str:
    """The rest of the field of units: CFSP, vectors of LLM-Pruner, and small steps, beside what they change."""
    results, rows = read("structured"), []
    for name, shown in OTHERS.items():
        cell = results[f"20% {name}"]
        report = cell["report"]
        rows.append(
            [
                shown, f"{report['parameters'][1]:,}", *(perplexity(cell["perplexity"][text]) for text in ("wikitext2", "ptb")),
                figure(report["mean_heldout_error"]), f"{report['seconds'] / 60:.0f}",
            ]
        )  # fmt: skip
    head = ("method", "parameters", "WikiText-2", "PTB", "held-out error", "minutes")
    best = min((f"20% {name}" for name in OTHERS), key=lambda name: results[name]["perplexity"]["wikitext2"])
    note = f"The lowest on WikiText-2 is {short(best)}." + worse(results, PLAIN, short, "as many parameters")
    return noted(table(head, rows), note)


def short(name: str) -> str:
    """A cell of the ratio that all have, without it."""
    return f"`{name.removeprefix('20% ').replace('compensated', 'numerical')}`"


def sides(results: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """The two ratios side by side, the lowest perplexity of every column in bold."""
    head, columns = ["method"], [list(names.values())]
    for ratio in RATIOS:
        cells = [None if f"{ratio} {name}" in NOT_MEASURED else results[f"{ratio} {name}"] for name in names]
        for text, title in (("wikitext2", f"{ratio.replace('%', ' %')}: WikiText-2"), ("ptb", "PTB")):
            values = [cell and cell["perplexity"][text] for cell in cells]
            lowest = min(value for value in values if value is not None)
            columns.append([f"**{perplexity(value)}**" if value == lowest else perplexity(value) for value in values])
            head.append(title)
        columns.append([figure(cell and cell["report"]["mean_heldout_error"]) for cell in cells])
        head.append("held-out error")
    return table(head, list(zip(*columns)))


def ratios() -> str:
    """Our default and its rivals at every ratio at which they were run."""
    results, rows = read("structured"), []
    wanted = ("10%", "20%", "30%", "50%", "70%")
    for name in RIVALS:
        cells = [results.get(f"{ratio} {name}") for ratio in wanted]
        shown = [
            " / ".join(perplexity(cell["perplexity"][text]) for text in ("wikitext2", "ptb")) if cell else "-" for cell in cells
        ]
        rows.append([METHODS[name], *shown])
    remaining = [results[f"{ratio} compensated, loss"]["report"]["parameters"][1] / 1e6 for ratio in wanted]
    rows.append(["million parameters that remain", *(f"{count:.1f}" for count in remaining)])
    return table(["WikiText-2 / PTB", *(ratio.replace("%", " %") for ratio in wanted)], rows)


def calibration() -> str:
    """How much calibration text the default needs, at 20 %."""
    results = read("structured")
    name = "20% compensated, loss"
    found = {(32, 512): results[name]}
    found |= {tuple(cell["keywords"]["windows"]): cell for cell in results.values() if "windows" in cell["keywords"]}
    rows = [
        [
            f"{count} of {length}",
            f"{count * length:,}",
            perplexity(cell["perplexity"]["wikitext2"]),
            figure(cell["report"]["mean_heldout_error"]),
        ]
        for (count, length), cell in sorted(found.items())
    ]
    return table(["windows", "tokens", "WikiText-2", "held-out error"], rows)


def speed() -> str:
    """Time and memory of smaller models."""
    results = read("structured_speed")
    rows = [
        [
            row["model"].replace("%", " %"),
            f"{row['parameters']:,}",
            f"{row['prefill_tokens_per_second']:.0f}",
            f"{row['decode_tokens_per_second']:.1f}",
            f"1/{row['mlp_speedup']:.2f}",
            f"{row['weights_bytes'] / 1e6:.0f}",
            f"{row['activation_bytes'] / 1e6:.0f}",
        ]
        for row in results["rows"]
        if "compensated" not in row["model"]  # those stand beside their perplexity, in `widths`
    ]
    head = ["model", "parameters", "prefill tokens/s", "decode tokens/s", "MLP time", "weights, MB", "beside them, MB"]
    return noted(table(head, rows), threads(results["threads"]))
