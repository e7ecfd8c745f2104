"""Layer errors with and without a better basis: heads turned between values and output, hidden channels in another order.

    python benchmarks/rotations.py --problems FOLDER [--heads 4 --groups 1] [--layers REGEX] [--out FILE]

FOLDER holds problem files (`gramian capture` writes them) and, in FOLDER/test, the Gram matrices of the same operators on other
text. Attention is measured where both o_proj and v_proj of a layer are there: as it is, turned by the scores of o_proj alone,
and by those of both, which is what `--rotate-heads` does when both are pruned; for n:m then with the channels of every head
reordered, too. Of down_proj the order of all channels is changed, for n:m. Weights are `l0_admm`'s without a ridge, so that
errors are those of one optimiser in several bases: |X (V - W)^T|^2 / |X W^T|^2 in float64, on the calibration moments or on the
test moments, of which nothing is chosen.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from common.results import RESULTS, save

from gramian.adapters.data.problem_files import read_gram, read_problem
from gramian.solvers import NM, Pattern, Quadratic, TopK, l0_admm
from gramian.solvers.support.channel_order import channel_order, removal_scores
from gramian.solvers.support.rotations import attention_rotations, rotated_columns, rotated_gram, rotated_rows
from gramian.tables import table
from gramian.versions import versions

PATTERNS: dict[str, Pattern] = {"50%": TopK(0.5), "2:4": NM(2, 4)}
Case = tuple[Quadratic, Quadratic]  # of one operator, on the calibration moments and on the test moments


def turned(case: Case, turns: np.ndarray, heads: int) -> Case:
    """The problems of an output projection O R, on both moments."""
    anchor = rotated_columns(case[0].anchor, turns, heads)
    fitted, test = (Quadratic(rotated_gram(each.gram, turns, heads), anchor) for each in case)
    return fitted, test


def ordered(case: Case, pattern: NM, heads: int, groups: int) -> Case:
    """The problems with the channels of every head, or all where heads is 1, in an order of which the pattern keeps more."""
    width = case[0].shape[1] // heads
    score = removal_scores(case[0]).reshape(-1, groups, heads // groups, width)
    orders = [channel_order(score[:, group].reshape(-1, width), pattern) for group in range(groups)]
    places = np.concatenate([head * width + orders[head * groups // heads] for head in range(heads)])
    fitted, test = (Quadratic(each.gram[np.ix_(places, places)], each.anchor[:, places]) for each in case)
    return fitted, test


def attention(output: Case, value: Case, heads: int, groups: int, pattern: Pattern) -> Iterator[tuple[str, str, Case, float]]:
    """Yield the operator, its basis, its problems in that, and the seconds that it took to find the basis."""
    yield "o_proj", "as it is", output, 0.0
    yield "v_proj", "as it is", value, 0.0
    if isinstance(pattern, NM):
        started = time.perf_counter()
        yield "o_proj", "reordered", ordered(output, pattern, heads, groups), time.perf_counter() - started
    for basis, own in (("turned for o_proj", None), ("turned for both", value[0])):
        started = time.perf_counter()
        turns = attention_rotations(output[0], own, heads=heads, groups=groups)
        seconds = time.perf_counter() - started
        found = turned(output, turns, heads)
        yield "o_proj", basis, found, seconds
        rows = rotated_rows(value[0].anchor, turns, groups)
        yield "v_proj", basis, (Quadratic(value[0].gram, rows), Quadratic(value[1].gram, rows)), seconds
        if isinstance(pattern, NM):
            started = time.perf_counter()
            there = ordered(found, pattern, heads, groups)
            yield "o_proj", f"{basis}, reordered", there, seconds + time.perf_counter() - started


def channels(case: Case, pattern: Pattern) -> Iterator[tuple[str, str, Case, float]]:
    """The same of hidden channels."""
    if isinstance(pattern, NM):
        yield "down_proj", "as it is", case, 0.0
        started = time.perf_counter()
        yield "down_proj", "reordered", ordered(case, pattern, 1, 1), time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=Path, required=True, metavar="FOLDER", help="where problem files are")
    parser.add_argument("--heads", type=int, default=4, help="query heads of the model (default %(default)s)")
    parser.add_argument("--groups", type=int, default=1, help="its key/value heads (default %(default)s)")
    parser.add_argument("--layers", default="", metavar="REGEX", help="only layers whose number the expression finds")
    parser.add_argument("--out", type=Path, default=RESULTS / "rotations.json", metavar="FILE", help="the result file")
    arguments = parser.parse_args()
    cases: dict[str, dict[str, Case]] = {}
    for file in sorted(arguments.problems.glob("*.safetensors")):
        operator = file.stem.rpartition(".")[2]
        if operator in ("o_proj", "v_proj", "down_proj"):
            problem, metadata = read_problem(file)
            if re.search(arguments.layers, metadata["layer"]):
                test = Quadratic(read_gram(arguments.problems / "test" / file.name), problem.anchor)
                cases.setdefault(metadata["layer"], {})[operator] = problem, test
    rows: list[dict[str, Any]] = []
    for layer, found in sorted(cases.items(), key=lambda case: int(case[0])):
        for name, pattern in PATTERNS.items():
            bases: list[tuple[str, str, Case, float]] = []
            if {"o_proj", "v_proj"} <= found.keys():
                bases += attention(found["o_proj"], found["v_proj"], arguments.heads, arguments.groups, pattern)
            if "down_proj" in found:
                bases += channels(found["down_proj"], pattern)
            for operator, basis, (fitted, test), seconds in bases:
                weights = l0_admm(fitted, pattern).weights
                errors = {"error": fitted.relative_error(weights), "test_error": test.relative_error(weights)}
                rows.append(
                    {"layer": layer, "operator": operator, "pattern": name, "basis": basis, **errors, "seconds": seconds}
                )
                print(
                    f"layer {layer} {operator} {name} {basis}: {errors['error']:.5f}, test {errors['test_error']:.5f}",
                    flush=True,
                )
    head = ["case", "error", "test", "s"]
    cells = [[f"{row['layer']} {row['operator']} {row['pattern']} {row['basis']}", f"{row['error']:.5f}",
              f"{row['test_error']:.5f}", f"{row['seconds']:.1f}"] for row in rows]  # fmt: skip
    print(table(head, cells))
    save(arguments.out, {"versions": dict(versions()), "heads": arguments.heads, "groups": arguments.groups, "rows": rows})


if __name__ == "__main__":
    main()
