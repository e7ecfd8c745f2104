"""A run that zeroes weights: one pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gramian.adapters.data.problem_files import problem_bytes
from gramian.adapters.drafts import new_directory
from gramian.adapters.files import check_space
from gramian.adapters.kinds.run import Run, say_refused, without_refits
from gramian.adapters.models.examples import Rows
from gramian.adapters.models.factored_weights import Factors, note_factors
from gramian.adapters.passes.planned import refitting, zeroing
from gramian.adapters.passes.searched import Search, Searched
from gramian.adapters.passes.sparsities import (
    sparsities_by_angles,
    sparsities_by_magnitude,
    sparsities_by_outliers,
    sparsities_by_search,
    sparsities_by_spectra,
)
from gramian.adapters.report import Report
from gramian.adapters.run.journal import Journal
from gramian.adapters.targets import free_bases, shape_of
from gramian.solvers import Pattern

__all__ = ["zeroed"]


def zeroed(
    run: Run,
    patterns: dict[str, Pattern],
    dense: list[str],
    batches: Sequence[Rows],
    fitted: int,
    problems: Path | None,
    search: Search | None,
) -> Report:
    """The one pass of a method that zeroes weights. fitted: how many of the batches calibrate. search: for the sparsities."""
    model, config, blocks, shares = run.model, run.config, run.blocks, run.shares(fitted, len(batches) - fitted)
    if problems is not None:
        moved = config.own("target") != "own"
        check_space(problems, sum(problem_bytes(shape_of(model, name), moved) for name in patterns))
    given: Mapping[str, Pattern] = patterns
    found: Searched | None = None
    bases, refused = free_bases(model, config, patterns)
    say_refused(refused, "keep their bases")
    if search is not None:
        patterns, found = sparsities_by_search(search, given)
    elif config.own("allocation") == "owl":
        patterns = sparsities_by_outliers(blocks, given, batches[:fitted], run.journal, run.mixture)
    elif config.own("allocation") == "alpha":
        patterns = sparsities_by_spectra(blocks, given, batches[:fitted], run.journal)
    elif config.own("allocation") == "angles":
        with run.bar(len(blocks.paths), "block") as shown:
            patterns = sparsities_by_angles(blocks, given, batches[:fitted], run.mixture, shown.update)
    elif config.own("allocation") == "magnitude":
        patterns = sparsities_by_magnitude(blocks, given, batches[:fitted], run.journal)
    with (
        run.bar(len(patterns), "operator") as shown,
        kept_problems(problems, run.journal) as folder,
    ):
        each = zeroing(model, blocks.paths, config, patterns, fitted, shown.update, folder, shares, run.mixture)
        walked = refitting(each, model, blocks.paths, config, batches, fitted, shares)
        rows, refits = without_refits(run.written(walked, batches, shares))
    note_factors(model, {row.name: row.parts for row in rows if isinstance(row.parts, Factors)})
    settings: dict[str, Any] = {
        **config.completed(),
        "pattern": ", ".join(dict.fromkeys(str(pattern) for pattern in given.values())),
        "target_blend": None if each.target == "own" else each.target_blend,
        "damping": each.solve.damping,
    }
    if bases:
        settings["changed_bases"] = len(bases)
    if refused:
        settings["refused"] = dict(refused)
    if found is not None:
        settings["search"] = found.document()
    if config.refit == "block":
        settings["target_blend"] = config.block_blend
    return Report(tuple(rows), settings, 0.0, tuple(dense), refits)


@contextmanager
def kept_problems(problems: Path | None, journal: Journal | None) -> Iterator[Path | None]:
    """Where problem files are written: in the journal, and without one in a directory that is renamed when the context ends."""
    if problems is None:
        yield None
    elif journal is not None:
        journal.problems.mkdir(exist_ok=True)
        yield journal.problems
    else:
        with new_directory(problems.expanduser().resolve(), overwrite=False) as draft:
            yield draft
