"""What a reader of a run has to know first: certificates and statuses that are not as they should be."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from gramian.adapters.pages.numerals import count, finite, number, per_cent, plain_number, worst
from gramian.adapters.pages.page import escape
from gramian.adapters.pages.records import Row, Run, mapping
from gramian.solvers.core.solution import Status

__all__ = ["Remark", "attention", "remarks_as_html"]

WARNING, NOTE, GOOD = "warning", "note", "good"
FITTED = 1e-3  # residuals up to here say that kept weights are the best for their positions
LOST = 0.5  # of the energy of an output
APART = 2.0  # held-out over calibration error, from which on calibration text is short
NAMES = 4  # that stand in a remark
CONCERNS = {  # statuses that say that something was not reached, or not as it was asked for
    Status.STEP_LIMIT: NOTE,
    Status.TIME_LIMIT: WARNING,
    Status.STOPPED: WARNING,
    Status.DAMPED: NOTE,
    Status.SINGULAR: NOTE,
    Status.UNREACHABLE: WARNING,
    Status.BROKEN: WARNING,
}


@dataclass(frozen=True)
class Remark:
    """kind: `warning`, `note` or `good`. title, text: sentences. names: what they are about."""

    kind: str
    title: str
    text: str = ""
    names: tuple[str, ...] = ()


def attention(run: Run) -> list[Remark]:
    """Warnings, then notes, then what is proven of the answers."""
    found = [*measures(run), *trained(run), *statuses(run), *errors(run), *settings(run), *residuals(run)]
    order = {WARNING: 0, NOTE: 1, GOOD: 2}
    found.sort(key=lambda remark: order[remark.kind])
    if found and any(remark.kind != GOOD for remark in found):
        return found
    return [Remark(GOOD, "Nothing needs attention.", "No status, certificate or error is out of the ordinary."), *found]


def trained(run: Run) -> Iterable[Remark]:
    """That what follows is of the model before it was trained further."""
    if run.tuning:
        checks = [number(mapping(each).get("loss")) for each in run.tuning.get("checks") or []]
        losses = [each for each in checks if each is not None]
        went = f" Its held-out loss went from {losses[0]:.4g} to {losses[-1]:.4g} nats per token." if losses else ""
        yield Remark(
            NOTE,
            "The model was trained further after it was pruned.",
            f"Errors, certificates and seconds are those of pruning, before that training.{went}",
        )


def measures(run: Run) -> Iterable[Remark]:
    """What the model as a whole says."""
    before, after = number(run.measured.get("dense")), number(run.measured.get("pruned"))
    if before is not None and after is not None and not after <= 2 * before:
        yield Remark(WARNING, f"Perplexity rose from {plain_number(before)} to {plain_number(after)}, to more than twice.")
    cosine = number(run.embedded.get("mean_cosine"))
    if cosine is not None and not cosine >= 0.8:
        yield Remark(WARNING, f"Embeddings moved far: their mean cosine with those before is {plain_number(cosine, 3)}.")


def statuses(run: Run) -> Iterable[Remark]:
    """Statuses that say that something was not reached."""
    for status, kind in CONCERNS.items():
        if names := named(row for row in run.rows if row.status == status.value):
            yield Remark(kind, f"{status.label.capitalize()}: {how_many(names, run)}.", f"{sentence(status.value)}", names)


def errors(run: Run) -> Iterable[Remark]:
    """Errors that are large, undefined, or much larger on other text."""
    if names := named(row for row in run.rows if row.reported_error is not None and not math.isfinite(row.reported_error)):
        text = "The dense layer gives nothing but zeros on this text, so that there is nothing to compare with."
        yield Remark(NOTE, f"No relative error: {how_many(names, run)}.", text, names)
    if names := named(
        row
        for row in run.rows
        if row.reported_error is not None and math.isfinite(row.reported_error) and row.reported_error > LOST
    ):
        text = f"More than {per_cent(LOST)} % of the energy of their outputs is lost."
        yield Remark(WARNING, f"Large errors: {how_many(names, run)}.", text, names)
    apart = [row for row in run.rows if row.error and row.heldout is not None and row.heldout > APART * row.error]
    if names := named(sorted(apart, key=lambda row: -(row.heldout or 0) / (row.error or 1))):
        text = (
            f"Their error on held-out text is more than {APART:g} times that on calibration text: more calibration text, or "
            "more damping, brings the two nearer. Those that are furthest apart come first."
        )
        yield Remark(NOTE, f"Calibration text is short: {how_many(names, run)}.", text, names)
    if names := named(row for row in run.rows if number(row.detail.get("borrowed_tokens"))):
        text = "Fewer tokens were routed to these experts than they have inputs, and others were borrowed."
        yield Remark(NOTE, f"Experts with few tokens: {count(len(names))}.", text, names)


def settings(run: Run) -> Iterable[Remark]:
    """What was left as it is."""
    refused = run.settings.get("refused")
    if isinstance(refused, dict) and refused:
        for reason in dict.fromkeys(map(str, refused.values())):
            names = tuple(str(name) for name, why in refused.items() if str(why) == reason)
            yield Remark(NOTE, f"Left as they are: {count(len(names))} modules.", sentence(reason), names)
    dense = run.document.get("dense")
    if isinstance(dense, list | tuple) and dense:
        names = tuple(map(str, dense))
        yield Remark(NOTE, f"Dense by the rules of sparsity: {count(len(names))} operators.", "", names)


def residuals(run: Run) -> Iterable[Remark]:
    """Whether kept weights are the best for their positions."""
    values = finite(row.residual for row in run.rows)
    if not values:
        return
    largest, middle = worst(values) or 0.0, median(values)
    if largest <= FITTED:
        text = f"The largest KKT residual is {plain_number(largest, 2)}, relative to the gradient where all weights are zero."
        yield Remark(GOOD, "Certified: kept weights are the best for their positions.", text)
    elif middle > FITTED:
        text = (
            f"KKT residuals are {plain_number(middle, 2)} in the middle and {plain_number(largest, 2)} at the largest: this "
            "method does not fit kept weights to the last digit."
        )
        more = " With --refit support it would." if run.kind == "weights" and run.settings.get("refit") == "none" else ""
        yield Remark(NOTE, "Kept weights are not the best for their positions.", text + more)
    else:
        rows = [row for row in run.rows if row.residual is not None and row.residual > FITTED]
        names = named(sorted(rows, key=lambda row: -(row.residual or 0)))
        text = f"Their KKT residuals are up to {plain_number(largest, 2)}, while {plain_number(middle, 2)} is the middle one."
        yield Remark(NOTE, f"Kept weights are not the best for their positions: {how_many(names, run)}.", text, names)


def named(rows: Iterable[Row]) -> tuple[str, ...]:
    """The names of rows."""
    return tuple(row.name for row in rows)


def how_many(names: Sequence[str], run: Run) -> str:
    """How many rows of all there are."""
    return f"{count(len(names))} of {count(len(run.rows))} {run.unit}{'s' if len(run.rows) > 1 else ''}"


def sentence(text: str) -> str:
    """Text with a large letter first and a full stop last."""
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def remarks_as_html(remarks: Sequence[Remark]) -> str:
    """A list, in which every remark says in a word of which kind it is."""
    items = []
    for remark in remarks:
        body = f'<span class="tag">{remark.kind}</span><strong>{escape(remark.title)}</strong>'
        if remark.text:
            body += f"<p>{escape(remark.text)}</p>"
        if remark.names:
            shown = ", ".join(f"<code>{escape(name)}</code>" for name in remark.names[:NAMES])
            rest = len(remark.names) - NAMES
            body += f"<p>{shown}{f' and {count(rest)} more' if rest > 0 else ''}</p>"
        items.append(f'<li class="{remark.kind}">{body}</li>')
    return f'<ul class="remarks">{"".join(items)}</ul>'
