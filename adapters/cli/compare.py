"""`gramian compare` sets the runs of several saved models side by side. It needs neither torch nor transformers."""

from __future__ import annotations

import argparse
from typing import Any

from gramian.adapters.cli.arguments import MakeCommand, add_html, add_json
from gramian.adapters.cli.output import emit
from gramian.adapters.cli.types import path
from gramian.adapters.files import check_result
from gramian.tables import figure, table

__all__ = ["add_compare", "compare_runs"]


def add_compare(command: MakeCommand) -> None:
    """Add the command."""
    compare = command(
        "compare",
        "set the runs of saved models side by side",
        "Compare what several runs did, by the gramian.json beside each saved model: method, zeros or parameters, perplexity\n"
        "before and after with paired differences where the text is the same, errors, certificates, seconds. What cannot be\n"
        "compared, since the dense models or the texts differ, is said.",
        "  gramian compare sparse-a sparse-b\n  gramian compare runs/* --html comparison.html --json comparison.json",
    )
    compare.add_argument("runs", nargs="+", type=path, metavar="DIR", help="saved models; differences are to the first")
    add_html(compare)
    add_json(compare)
    compare.set_defaults(run=compare_runs, needs_models=False)


def compare_runs(args: argparse.Namespace) -> None:
    """Read the runs, and write a table, the warnings, and the files that were asked for."""
    from gramian.adapters.cli.pages import write_page
    from gramian.adapters.pages.comparison import compared, page_of_comparison, warnings_about

    check_result(args.json)
    check_result(args.html)
    runs = compared(args.runs)
    rows = [each.figures() for each in runs]
    warnings = warnings_about(runs)
    text = "\n".join([shown(rows), *(f"warning: {remark.title} {remark.text}" for remark in warnings)])
    write_page(args.html, lambda: page_of_comparison(runs))
    emit({"runs": rows, "warnings": [f"{remark.title} {remark.text}" for remark in warnings]}, text, args.json)


def shown(rows: list[dict[str, Any]]) -> str:
    """A line per run."""
    head = [
        "run", "method", "removed", "parameters", "before", "after", "rise", "+-", "to first", "+-", "cosine", "error",
        "held-out", "worst KKT", "s",
    ]  # fmt: skip
    lines = []
    for row in rows:
        after = row["parameters"]["after"]
        lines.append(
            [
                row["run"],
                row["method"],
                "-" if row["share"] is None else f"{100 * row['share']:.1f}% {row['removed']}",
                "-" if after is None else f"{after:,}",
                *(figure4(row["perplexity"][name]) for name in ("dense", "pruned")),
                *(figure(row[name]) for name in ("rise_nats", "rise_standard_error")),
                *(figure(row[name]) for name in ("difference_to_first_nats", "difference_standard_error")),
                *(figure(row[name]) for name in ("mean_cosine", "mean_error", "mean_heldout_error", "largest_residual")),
                f"{row['seconds']:.0f}",
            ]
        )
    some = [place for place in range(len(head)) if place < 2 or any(line[place] != "-" for line in lines)]
    return table([head[place] for place in some], [[line[place] for place in some] for line in lines], words=2)


def figure4(value: float | None) -> str:
    """Perplexity, with four digits."""
    return "-" if value is None else f"{value:.4g}"
