"""What the seconds of a run go to."""

from __future__ import annotations

from common.results import read
from figures.markdown import noted, table, threads
from figures.perplexity import published

CODES = {"l0": "ALPS", "sparsegpt": "SparseGPT"}  # a method, and the published code of its kind


def runs() -> str:
    """Seconds of pruning the whole model, before both cores were used everywhere, now, and of the published code."""
    results, before, theirs = read("end_to_end"), read("before"), published()["50%"]
    cells = {method: results[f"{method} 50%"] for method in CODES}
    rows = [
        ["before", *(f"{before['seconds'][method]}" for method in CODES)],
        ["now", *(f"{cell['report']['seconds']:.0f}" for cell in cells.values())],
        ["the published code", *(f"{theirs[code]['seconds']} ({code})" for code in CODES.values())],
    ]
    phases = dict.fromkeys(phase for cell in cells.values() for phase in cell["phases"])
    for phase in sorted(phases, key=lambda phase: -max(cell["phases"].get(phase, 0.0) for cell in cells.values())):
        rows.append(
            [f"now: {phase}", *(f"{cell['phases'][phase]:.0f}" if phase in cell["phases"] else "-" for cell in cells.values())]
        )
    now = cells["l0"]
    head = ["s", *(f"`{method}`" for method in CODES)]
    return noted(
        table(head, rows),
        f"Half of the weights of all {now['report']['operators']['count']} operators. The published codes had two cores too, "
        f"on another day. {threads(now['threads'])}",
    )


def phases() -> str:
    """Seconds by phase of pruning runs."""
    results = read("phases")
    methods = results["rows"]
    names = dict.fromkeys(phase for row in methods for phase in row["phases"])
    rows = [[phase, *(f"{row['phases'][phase]:.1f}" if phase in row["phases"] else "-" for row in methods)] for phase in names]
    rows.append(["all", *(f"{row['seconds']:.0f}" for row in methods)])
    head = ["phase, s", *(f"`{row['method']}`" for row in methods)]
    return noted(
        table(head, rows), f"{methods[0]['operators']} operators of {results['blocks']} blocks. {threads(results['threads'])}"
    )


def shared() -> str:
    """Seconds of runs by one process and by two, and what was foreseen."""
    results = read("ranks")
    rows = [
        [
            f"`{row['method']}`", f"{row['one s']:.0f}", f"{row['two s']:.0f}", f"{row['ratio']:.2f}", f"{row['foreseen']:.2f}",
            "yes" if row["equal bytes"] else "no",
        ]
        for row in results["measured"]
    ]  # fmt: skip
    blocks = results["measured"][0]["blocks"]
    return noted(
        table(["method", "one process, s", "two, s", "ratio", "foreseen", "equal bytes"], rows),
        f"The first {blocks} blocks of gemma-3-270m, 32 windows of 512 tokens and 4 held out, one thread in each process.",
    )


def planned() -> str:
    """What the planner says of large models on many processes."""
    results = read("ranks")
    rows = []
    for row in results["planned"]:
        gib = 2**30
        figures = [f"{row['ranks']}", f"{row['critical_path'] / 60:.0f}", f"{row['speedup']:.1f}", f"{100 * row['work']:.0f} %"]
        figures += [f"{row['memory'] / gib:.0f}", f"{row['traffic'] / gib:,.0f}"]
        rows.append([row["shape"], f"`{row['method']}`", *figures])
    head = [
        "model",
        "method",
        "processes",
        "minutes",
        "times as fast",
        "work of the busiest",
        "GiB at the peak",
        "GiB received",
    ]
    return noted(
        table(head, rows),
        "Estimates, for 128 windows of 2048 tokens at 50 % zeros unless 2:4 is said, products at 50 TFLOP/s, and 25 GB/s that "
        "each process receives; blocks are read for their turn.",
    )
