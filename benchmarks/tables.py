"""Every table of results, written from `results/` into the READMEs.

    python benchmarks/tables.py            # writes
    python benchmarks/tables.py --check    # exits 1 if a README is not what it would write
    python benchmarks/tables.py --print summary

What stands between `<!-- table: NAME -->` and `<!-- end -->` is replaced, and nothing else. `benchmarks/README.md` has every
table, and `README.md` has the summary. A table without its place in a README is an error, and so are a name that no table has
and a figure that `results/` lacks.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path

from figures import (
    allocation,
    bases,
    combined,
    depth,
    elsewhere,
    estimators,
    factored,
    field,
    fistapruner,
    gpu,
    layers,
    perplexity,
    refits,
    sliced,
    smaller,
    times,
    trained,
    training,
    types,
    written,
)

HERE = Path(__file__).parent
BLOCK = re.compile(r"(<!-- table: (.+?) -->\n)(?:(?!<!-- table: ).)*?(<!-- end -->)", re.DOTALL)

TABLES: dict[str, Callable[[], str]] = {
    "summary": perplexity.summary,
    "perplexity": perplexity.pruned,
    "field": field.others,
    "FISTAPruner by sparsity": fistapruner.by_sparsity,
    "FISTAPruner by start": fistapruner.by_start,
    "FISTAPruner by calibration": fistapruner.by_calibration,
    "targets": perplexity.targets,
    "structured": smaller.removed,
    "importances": smaller.importances,
    "narrower streams": sliced.narrower,
    "ratios": smaller.ratios,
    "calibration": smaller.calibration,
    "outputs": smaller.outputs,
    "speed": smaller.speed,
    "widths": smaller.widths,
    "depth": depth.shallower,
    "smaller models elsewhere": elsewhere.tried,
    "allocation": allocation.small,
    "allocation of gemma": allocation.whole,
    "heads": trained.heads,
    "experts": trained.experts,
    "expert removal": trained.removed_experts,
    "block refits": refits.refitted,
    "block fits": refits.fits,
    "finetune": trained.tuned,
    "tune": training.tuned,
    "combined": combined.combined,
    "written": written.written,
    "no finetune": trained.untuned,
    "finetune speed": trained.tuning_speed,
    "scaling": layers.scores,
    "layer_error": layers.layer_errors,
    "masks": layers.masks,
    "refit": layers.refits,
    "support_bound": layers.support_bounds,
    "rotations": bases.rotations,
    "low rank": factored.low_ranks,
    "quantised": factored.quantised,
    "lasso": layers.lasso_times,
    "regression": layers.regression_times,
    "fista_gap": layers.fista_gaps,
    "scikit-learn tests": estimators.sklearn_tests,
    "moments": layers.moments,
    "runs": times.runs,
    "phases": times.phases,
    "several processes": times.shared,
    "planned processes": times.planned,
    "model types": types.tried,
    "gpu models": gpu.models,
    "gpu refits": gpu.refits,
    "gpu steps": gpu.steps,
}
READMES = {HERE / "README.md": tuple(TABLES), HERE.parent / "README.md": ("summary",)}  # and the tables that each has


def made(name: str) -> str:
    """A table by its name."""
    if name not in TABLES:
        raise SystemExit(f"there is no table {name!r}, only {', '.join(TABLES)}")
    try:
        return TABLES[name]()
    except KeyError as missing:
        raise SystemExit(f"table {name!r}: results/ has no {missing}") from None


def filled(readme: Path) -> str:
    """A README with its tables as they have to be."""
    text = readme.read_text(encoding="utf-8")
    places = [found[2] for found in BLOCK.finditer(text)]
    for name in READMES[readme]:
        if name not in places:
            raise SystemExit(f"{shown(readme)} has no place for table {name!r}: `<!-- table: {name} -->`, then `<!-- end -->`")
    return BLOCK.sub(lambda found: f"{found[1]}{made(found[2])}\n{found[3]}", text)


def shown(readme: Path) -> str:
    """Its path in the repository."""
    return readme.relative_to(HERE.parent).as_posix()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a README would change")
    parser.add_argument("--print", choices=TABLES, metavar="NAME", help="print one table and write nothing")
    arguments = parser.parse_args()
    if arguments.print:
        print(made(arguments.print))
        return
    stale = []
    for readme in READMES:
        after = filled(readme)
        if after != readme.read_text(encoding="utf-8"):
            stale.append(shown(readme))
            if not arguments.check:
                readme.write_text(after, encoding="utf-8")
    if stale:
        print(f"{', '.join(stale)}: {'not what results/ say' if arguments.check else 'written'}")
    if stale and arguments.check:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
