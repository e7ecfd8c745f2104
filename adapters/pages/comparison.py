"""Several runs side by side: their figures, what may be compared, and the page that shows it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from gramian.adapters.files import REPORT
from gramian.adapters.pages.attention import Remark, attention, remarks_as_html
from gramian.adapters.pages.numerals import duration, finite, number, per_cent, plain_number, worst
from gramian.adapters.pages.page import Section, escape, page, table_of
from gramian.adapters.pages.records import Run, mapping, run_of
from gramian.adapters.pages.whiskers import Whisker, whiskers

__all__ = ["Compared", "compared", "page_of_comparison", "read_run", "warnings_about"]


@dataclass(frozen=True)
class Compared:
    """A run among others. name: of its directory, with as much of the path as tells it from the others. difference: mean loss
    of its model minus that of the first run's, in nats per token, with its standard error over windows; None where the two were
    not measured on the same windows."""

    name: str
    run: Run
    difference: tuple[float, float] | None

    def figures(self) -> dict[str, Any]:
        """What is compared, for JSON."""
        run = self.run
        error, heldout = run.mean_errors
        before, after = run.parameters or (None, None)
        difference, spread = self.difference or (None, None)
        return {
            "run": self.name,
            "model": run.model,
            "method": run.method,
            "removed": "weights" if run.kind == "weights" else run.kind,
            "share": number(run.document.get("sparsity" if run.kind == "weights" else "ratio")),
            "parameters": {"before": before, "after": after},
            "perplexity": {"dense": number(run.measured.get("dense")), "pruned": number(run.measured.get("pruned"))},
            "rise_nats": number(run.measured.get("difference_nats")),
            "rise_standard_error": number(run.measured.get("standard_error")),
            "difference_to_first_nats": difference,
            "difference_standard_error": spread,
            "mean_cosine": number(run.embedded.get("mean_cosine")),
            "mean_error": error,
            "mean_heldout_error": heldout,
            "largest_residual": worst(finite(row.residual for row in run.rows)),
            "warnings": sum(remark.kind == "warning" for remark in attention(run)),
            "seconds": run.seconds,
        }


def read_run(folder: Path) -> Run:
    """Read the run of a saved model, by its directory or its `gramian.json`.

    FileNotFoundError without that file; ValueError for one that cannot be read or is not that of a run.
    """
    file = folder / REPORT if folder.is_dir() else folder
    if not file.is_file():
        raise FileNotFoundError(f"no {REPORT} in {str(folder)!r}: expected the directory of a model that gramian has saved")
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} cannot be read: {error}") from error
    run = run_of(document) if isinstance(document, Mapping) else None
    if run is None:
        raise ValueError(f"{file} is not the report of a run: it has neither operators nor modules")
    return run


def compared(folders: Sequence[Path]) -> list[Compared]:
    """Read the runs, in the order given; the first is what differences refer to. Errors are those of `read_run`."""
    runs = [read_run(folder) for folder in folders]
    return [Compared(name, run, difference(run, runs[0])) for name, run in zip(names(folders), runs)]


def names(folders: Sequence[Path]) -> list[str]:
    """The shortest ends of paths that tell them apart."""
    parts = [(folder.parent if folder.name == REPORT else folder).absolute().parts for folder in folders]
    longest = max(map(len, parts))
    for length in range(1, longest + 1):
        found = ["/".join(each[-length:]) for each in parts]
        if len(set(found)) == len(set(parts)):
            return found
    return [str(folder) for folder in folders]


def difference(run: Run, first: Run) -> tuple[float, float] | None:
    """Mean loss of one model minus that of another on the same windows, and its standard error over windows."""
    if run is first or not text_of(run) or text_of(run) != text_of(first):
        return None
    ours, theirs = (mapping(each.measured.get("nats_by_window")).get("pruned") for each in (run, first))
    if not isinstance(ours, list) or not isinstance(theirs, list) or len(ours) != len(theirs) or len(ours) < 2:
        return None
    gaps = [float(one) - float(other) for one, other in zip(ours, theirs)]
    return fmean(gaps), stdev(gaps) / math.sqrt(len(gaps))


def text_of(run: Run) -> str:
    """The digest of the windows on which perplexity was measured, nothing where it is not stated."""
    return str(run.measured.get("sha256") or "")


def weights_of(run: Run) -> str:
    """The digest of the dense weights, or the name of the model where the run did not state it."""
    return str(mapping(run.document.get("fingerprint")).get("weights") or run.model)


def warnings_about(runs: Sequence[Compared]) -> list[Remark]:
    """Why some figures of these runs cannot be compared."""
    checks: tuple[tuple[str, Callable[[Run], str], str], ...] = (
        ("The dense models differ", weights_of, "Perplexities and errors say nothing of which run is better."),
        (
            "Perplexity was measured on different text",
            lambda run: text_of(run) or written(run, "source", "windows", "context"),
            "Perplexities after pruning cannot be compared; the rise over the dense model says something still.",
        ),
        (
            "Held-out windows differ", lambda run: str(mapping(run.settings.get("heldout")).get("sha256") or "none"),
            "Held-out errors are of different text.",
        ),
        (
            "Calibration windows differ", lambda run: str(mapping(run.settings.get("calibration")).get("sha256") or "none"),
            "Calibration errors are of different text, and the method is not all that differs.",
        ),
        (
            "What was removed differs", lambda run: run.kind,
            "Errors of operators and of modules are not of the same outputs.",
        ),
    )  # fmt: skip
    found = []
    for title, of, text in checks:
        groups: dict[str, list[str]] = {}
        for each in runs:
            if of is not checks[1][1] or each.run.measured:
                groups.setdefault(of(each.run), []).append(each.name)
        if len(groups) > 1:
            sides = " | ".join(", ".join(group) for group in groups.values())
            found.append(Remark("warning", f"{title}: {sides}.", text))
    return found


def written(run: Run, *keys: str) -> str:
    """Some figures of the measured perplexity, as text."""
    return " ".join(str(run.measured.get(key)) for key in keys)


def page_of_comparison(runs: Sequence[Compared]) -> str:
    """The page."""
    remarks = warnings_about(runs) or [
        Remark(
            "good", "These runs can be compared.", "Their dense weights, their calibration text and their other text are one."
        )
    ]
    bars = [
        Whisker(each.name, value, number(each.run.measured.get("standard_error")) or 0.0)
        for each in runs
        if (value := number(each.run.measured.get("difference_nats"))) is not None
    ]
    sections = [Section("What can be compared", remarks_as_html(remarks))]
    if bars:
        more = "Nats per token over the dense model, with two standard errors on either side. Less is better."
        sections.append(Section("What each cost its model", whiskers(bars, "Rise of the loss", more, "rise")))
    sections.append(Section("Figures", tables(runs)))
    sections.append(Section("Certificates and statuses", "\n".join(concerns(each) for each in runs)))
    count = len(runs)
    lead = [f"{count} runs side by side: {', '.join(each.name for each in runs)}."]
    return page("gramian compare", "Runs compared", lead, [], sections, "Written by gramian. This page loads nothing.")


def tables(runs: Sequence[Compared]) -> str:
    """A row per figure and a column per run, so that many figures fit on a narrow screen."""
    rows: list[tuple[str, Callable[[Compared], str]]] = [
        ("dense model", lambda each: each.run.title),
        ("method", lambda each: each.run.method),
        ("removed", removed),
        ("parameters after", lambda each: plain(each.run.parameters[1]) if each.run.parameters else "as before"),
        ("perplexity before", lambda each: plain_number(number(each.run.measured.get("dense")))),
        ("perplexity after", lambda each: plain_number(number(each.run.measured.get("pruned")))),
        (
            "rise, nats per token",
            lambda each: gap(each.run.measured.get("difference_nats"), each.run.measured.get("standard_error")),
        ),
        ("against the first, nats", lambda each: gap(*(each.difference or (None, None)))),
        ("cosine of embeddings", lambda each: plain_number(number(each.run.embedded.get("mean_cosine")))),
        ("mean error, calibration", lambda each: f"{per_cent(each.run.mean_errors[0])} %"),
        ("mean error, held-out", lambda each: f"{per_cent(each.run.mean_errors[1])} %"),
        ("largest KKT residual", lambda each: plain_number(each.figures()["largest_residual"], 2)),
        ("time", lambda each: duration(each.run.seconds)),
        ("device", lambda each: str(each.run.settings.get("device", "–"))),
    ]
    found = []
    for first in range(0, len(runs), 3):  # as many as fit on a narrow screen
        some = runs[first : first + 3]
        cells = [[escape(name), *(escape(of(each)) for each in some)] for name, of in rows]
        kept = [row for row in cells if any(cell not in ("–", "– %") for cell in row[1:])]
        found.append(
            table_of(
                f"Runs {first + 1} to {first + len(some)}", ["figure", *(each.name for each in some)], kept, kind="columns"
            )
        )
    return f'<div class="stack">{"".join(found)}</div>'


def removed(each: Compared) -> str:
    """How much was removed, and of what."""
    if each.run.kind == "weights":
        return f"{per_cent(number(each.run.document.get('sparsity')))} % zeros"
    return f"{per_cent(number(each.run.document.get('ratio')))} % of the blocks, {each.run.kind}"


def plain(parameters: int) -> str:
    """A number of parameters."""
    return f"{parameters:,}"


def gap(value: Any, spread: Any) -> str:
    """A difference with its standard error."""
    one, other = number(value), number(spread)
    return "–" if one is None else f"{one:+.4f}" + ("" if other is None else f" ± {other:.4f}")


def concerns(each: Compared) -> str:
    """What needs attention in one run."""
    return f"<h3>{escape(each.name)}</h3>\n{remarks_as_html(attention(each.run))}"
