"""What stands at the top of a run's page: two sentences and four figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from gramian.adapters.pages.numerals import count, duration, number, per_cent, plain_number
from gramian.adapters.pages.page import Card
from gramian.adapters.pages.records import Run, mapping

__all__ = ["cards", "what_was_done"]


def what_was_done(run: Run) -> list[str]:
    """Two sentences: what was done, and what it cost."""
    windows, calibration = run.settings.get("windows"), mapping(run.settings.get("calibration"))
    text = ""
    if isinstance(windows, Sequence) and len(windows) == 2:
        text = f", calibrated on {windows[0]} windows of {windows[1]} tokens ({named_source(calibration)})"
    model, rows = run.title if run.model else "the model", len(run.rows)
    if run.kind == "weights":
        share = number(run.document.get("sparsity"))
        pattern = str(run.settings.get("pattern") or "")
        form = f" in the pattern {pattern}" if ":" in pattern else ""
        where = f"in {count(rows)} operators of {model}"
        done = f"The method {run.method} set {per_cent(share)} % of the weights {where} to zero{form}{text}."
    elif run.kind == "blocks":
        gone = [str(number) for number in run.settings["removed_blocks"]]
        done = (
            f"The method {run.method} removed {len(gone)} of the {count(rows)} blocks of {model}, "
            f"{'number' if len(gone) == 1 else 'numbers'} {', '.join(gone)}{text}."
        )
    elif run.kind == "stream":
        before, after = mapping(run.settings["stream"])["width"]
        done = f"The method {run.method} narrowed the stream of {model} from {before} to {after} directions{text}."
    else:
        noun = "experts" if run.kind == "experts" else units_removed(run)
        share = number(run.document.get("ratio"))
        done = (
            f"The method {run.method} removed {noun} with {per_cent(share)} % of the parameters inside the blocks of {model}, "
            f"from {count(rows)} {run.unit}{'s' if rows > 1 else ''}{text}."
        )
    before, after = number(run.measured.get("dense")), number(run.measured.get("pruned"))
    error, heldout = run.mean_errors
    whose = {"blocks": "the stream between blocks", "stream": "the stream at a norm"}.get(run.kind, "a layer's output")
    lost = f"on average {whose} lost {per_cent(error)} % of its energy on calibration text"
    if heldout is not None:
        lost += f" and {per_cent(heldout)} % on text that the method never saw"
    if before is not None and after is not None:
        return [done, f"Perplexity went from {plain_number(before)} to {plain_number(after)}, and {lost}."]
    if (cosine := number(run.embedded.get("mean_cosine"))) is not None:
        return [done, f"Embeddings before and after have a mean cosine of {cosine:.4f}, and {lost}."]
    return [done, f"{lost[0].upper()}{lost[1:]}; perplexity was not measured."]


def units_removed(run: Run) -> str:
    """What was removed: heads, of which a module has few enough to be kept by number, or channels, or both."""
    few = [row.units for row in run.rows if row.units is not None and row.name in run.kept]
    many = [row.units for row in run.rows if row.units is not None and row.name not in run.kept]
    if many and all(before == after for before, after in few):
        return "hidden channels"
    return "heads" if many and all(before == after for before, after in many) else "heads and hidden channels"


def named_source(calibration: Mapping[str, Any]) -> str:
    """Where calibration text came from, of a file its name alone."""
    source = str(calibration.get("source") or "unknown text")
    return PurePath(source).name if source.startswith(("/", ".", "~")) else source


def cards(run: Run) -> list[Card]:
    """The figures at the top."""
    found = []
    if run.measured:
        before, after = number(run.measured.get("dense")), number(run.measured.get("pruned"))
        found.append(Card("perplexity", f"{plain_number(before)} → {plain_number(after)}", "before and after; lower is better"))
    elif (cosine := number(run.embedded.get("mean_cosine"))) is not None:
        found.append(Card("cosine of embeddings", f"{cosine:.4f}", "mean, before with after; 1 is unchanged"))
    if run.parameters is not None:
        before_all, after_all = run.parameters
        share = number(run.document.get("ratio"))
        found.append(
            Card("parameters", f"{short(before_all)} → {short(after_all)}", f"{per_cent(share)} % of those in blocks removed")
        )
    else:
        found.append(
            Card("zeros", f"{per_cent(number(run.document.get('sparsity')))} %", f"of {count(len(run.rows))} operators")
        )
    error, heldout = run.mean_errors
    more = "" if heldout is None else f"{per_cent(heldout)} % on held-out text"
    whose = "the stream" if run.kind in ("blocks", "stream") else "a layer"
    found.append(Card(f"mean error of {whose}", f"{per_cent(error)} %", more or "on calibration text"))
    found.append(Card("time", duration(run.seconds), f"on {run.settings.get('device', 'an unknown device')}"))
    return found


def short(parameters: int) -> str:
    """A number of parameters in thousands, millions or billions."""
    for size, letter in ((10**9, " B"), (10**6, " M"), (10**3, " k")):
        if parameters >= size:
            return f"{plain_number(parameters / size, 3)}{letter}"
    return str(parameters)
