"""Every table of results, written from `results/` into the READMEs.

    python benchmarks/tables.py            # writes
    python benchmarks/tables.py --check    # exits 1 if a README is not what it would write
    python benchmarks/tables.py --print summary

What stands between `<!-- table: NAME -->` and `<!-- end -->` in `benchmarks/README.md` and in `README.md` is replaced; the rest
is left alone. A table whose figures are not in `results/` is an error, and so is a name that is none.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path

from figures import layers, perplexity, smaller, trained

HERE = Path(__file__).parent
READMES = (HERE / "README.md", HERE.parent / "README.md")
BLOCK = re.compile(r"(<!-- table: (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)

TABLES: dict[str, Callable[[], str]] = {
    "summary": perplexity.summary,
    "perplexity": perplexity.pruned,
    "corrections": perplexity.corrections,
    "structured": smaller.removed,
    "ratios": smaller.ratios,
    "calibration": smaller.calibration,
    "outputs": smaller.outputs,
    "speed": smaller.speed,
    "heads": trained.heads,
    "finetune": trained.tuned,
    "no finetune": trained.untuned,
    "finetune speed": trained.tuning_speed,
    "scaling": layers.scores,
    "layer_error": layers.layer_errors,
    "masks": layers.masks,
    "refit": layers.refits,
    "lasso": layers.lasso_times,
    "fista_gap": layers.fista_gaps,
    "moments": layers.moments,
}


def made(name: str) -> str:
    """A table by its name."""
    if name not in TABLES:
        raise SystemExit(f"there is no table {name!r}, only {', '.join(TABLES)}")
    try:
        return TABLES[name]()
    except KeyError as missing:
        raise SystemExit(f"table {name!r}: results/ has no {missing}") from None


def written(text: str) -> str:
    """A README with its tables as they have to be."""
    return BLOCK.sub(lambda found: f"{found[1]}{made(found[2])}\n{found[3]}", text)


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
        before = readme.read_text(encoding="utf-8")
        after = written(before)
        if after != before:
            stale.append(readme.relative_to(HERE.parent).as_posix())
            if not arguments.check:
                readme.write_text(after, encoding="utf-8")
    if stale:
        print(f"{', '.join(stale)}: {'not what results/ say' if arguments.check else 'written'}")
    if stale and arguments.check:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
