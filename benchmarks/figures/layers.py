"""Single layers: errors beside the published codes, times of solvers, precision of moments."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from common.results import read
from figures.markdown import apart, geometric_mean, listed, noted, significant, table, threads

Row = Mapping[str, Any]
MASKS = {
    "wanda, refit": "refit",
    "wanda, dsnot": "DSnoT: exchanges, the weights as they are",
    "wanda, dsnot, refit": "DSnoT, refit",
    "wanda, exchanged": "exchanges with all other weights refitted (`exchange_weights`)",
    "l0, undamped": "`l0`, undamped, from nothing",
}
OTHERS = ("scikit-learn", "skglm", "celer")
AGAINST = (  # run, and the published code that it is compared with; None is its warm start
    ("wanda", "wanda"),
    ("sparsegpt", "sparsegpt"),
    ("fistapruner from wanda", None),
    ("fistapruner from sparsegpt", None),
    ("fistapruner from sparsegpt", "sparsegpt"),
    ("fistapruner from sparsegpt", "alps"),
    ("l0, undamped", "sparsegpt"),
    ("l0, undamped", "alps"),
    ("l0", "alps"),
)


def by_case(run: str) -> dict[tuple[str, str], Row]:
    """Rows of a run by operator and pattern."""
    rows = {(row["operator"], row["pattern"]): row for row in read("layer_error")["rows"] if row["run"] == run}
    if not rows:
        raise KeyError(run)
    return rows


def peer(code: str, case: tuple[str, str]) -> Row:
    """A published code on an operator at a pattern."""
    operator, pattern = case
    return read("published")["layers"]["operators"][operator][pattern][code]


def spread(ratios: Sequence[float]) -> str:
    return f"{geometric_mean(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"


def layer_errors() -> str:
    """Ratios of errors to those of the published codes, or of the warm start."""
    rows = []
    for run, code in AGAINST:
        cases = by_case(run)
        if code is None:
            against, test = "its warm start", "-"
            fit = spread([row["error"] / row["warm_start_error"] for row in cases.values()])
        else:
            against = f"published {read('published')['codes'][code]['name']}"
            fit, test = (
                spread([row[key] / peer(code, case)[key] for case, row in cases.items()]) for key in ("error", "test_error")
            )
        rows.append([run, against, fit, test])
    damped, undamped, ours = by_case("l0"), by_case("l0, undamped"), by_case("sparsegpt")
    fit = geometric_mean([row["error"] / undamped[case]["error"] for case, row in damped.items()])
    lower = sum(row["test_error"] < undamped[case]["test_error"] for case, row in damped.items())
    below = sum(row["test_error"] < peer("alps", case)["test_error"] for case, row in damped.items())
    slower = geometric_mean([row["seconds"] / ours[case]["seconds"] for case, row in undamped.items()])
    theirs = geometric_mean([peer("alps", case)["seconds"] / peer("sparsegpt", case)["seconds"] for case in undamped])
    return noted(
        table(["run", "against", "calibration error", "test error"], rows),
        f"On the calibration text damping takes the error of `l0` to {apart(fit, 1)} that of `l0, undamped`, and it lowers the "
        f"error on the test text in {lower} of "
        f"{len(damped)} cases; there it is below the published ALPS in {below} of {len(damped)}. "
        f"Undamped, `l0` takes {slower:.1f} times as long as our SparseGPT on one thread, and the published ALPS "
        f"{theirs:.1f} times as long as the published SparseGPT.",
    )


def masks() -> str:
    """What refits and exchanges make of Wanda's mask: errors as fractions of Wanda's, on the cases that all runs have."""
    first, runs = by_case("wanda"), {name: by_case(name) for name in MASKS}
    common = [case for case in first if all(case in cases for cases in runs.values())]
    rows = []
    for name, title in MASKS.items():
        ratios = [
            geometric_mean([runs[name][case][key] / first[case][key] for case in common]) for key in ("error", "test_error")
        ]
        seconds = statistics.mean(runs[name][case]["seconds"] for case in common)
        rows.append([title, *(f"{ratio:.3f}" for ratio in ratios), significant(seconds)])
    operators = dict.fromkeys(operator for operator, _ in common)
    note = f"The {len(common)} cases are those of {listed(list(operators))}."
    return noted(table(["run", "calibration error", "test error", "s"], rows), note)


def refits() -> str:
    """Exact weights on a support, beside one factorisation after another."""
    results = read("refit")
    rows = [
        [name, significant(row["seconds"]), f"{row['row by row']:.1f}", significant(row["ratio"])]
        for name, row in results["rows"].items()
    ]
    rate = results["rows"]["a support for every row"]["part of the product's rate"]
    difference = max(row["difference"] for row in results["rows"].values())
    return noted(
        table(["support", "seconds", "row by row", "ratio"], rows),
        f"The answers differ by {difference:.0e} of the largest "
        f"weight at most. With a support for every row, factorisations reach {rate:.2f} of the rate of a matrix product.",
    )


def support_bounds() -> str:
    """What is proven of `l0` on the damped problems that it solves."""
    results = read("support_bound")
    rows = [
        [
            f"{row['operator']}, {row['pattern'].replace('%', ' %')}",
            significant(row["damped error"]),
            f"{row['bound of loss']:.1%}",
            f"{1 - row['bound of loss']:.1%}",
            f"{row['ridge']:.3f}",
            f"{row['split']:.3f}",
            significant(row["l0 seconds"]),
            significant(row["bound seconds"]),
        ]
        for row in results["rows"]
    ]
    parts = [row["bound of loss"] for row in results["rows"]]
    head = ["operator, zeros", "damped loss", "bound, of it", "gap", "ridge", "diagonal", "`l0`, s", "bound, s"]
    return noted(
        table(head, rows),
        f"The bound is {min(parts):.0%} to {max(parts):.0%} of the loss. Ridge and diagonal are medians over channels, as "
        f"parts of the damped Gram's diagonal. {results['splits']} diagonals were tried, {results['steps']} steps each.",
    )


def lasso_times() -> str:
    """`lasso` beside the fastest of the others, where they met the gap."""
    gaps, ours = (1e-3, 1e-6, 1e-9), "gramian"
    cases: dict[tuple[str, int, float], dict[float, dict[str, Row]]] = {}
    for cell in read("lasso").values():
        args = cell["keywords"]
        if "solver" in args:
            case = cases.setdefault((args["layer"], args["width"], args["sparsity"]), {})
            case.setdefault(args["gap"], {})[args["solver"]] = cell
    rows, by_width = [], {}
    for (name, width, sparsity), case in sorted(cases.items(), key=lambda item: (item[0][1], item[0])):
        fastest, ratios = {}, {}
        for gap in gaps:
            others = {solver: cell["ms per row"] for solver, cell in case[gap].items() if solver in OTHERS and cell["reached"]}
            fastest[gap] = min(others, key=lambda solver: others[solver])
            ratios[gap] = others[fastest[gap]] / case[gap][ours]["ms per row"]
        by_width.setdefault(width, []).append(ratios[1e-6])
        other = fastest[1e-6]
        rows.append(
            [
                f"{name.partition('.')[2]}, {width} inputs, {100 * sparsity:.0f} %",
                f"{case[1e-6][ours]['ms per row']:.1f}",
                f"{case[1e-6][other]['ms per row']:.1f} ({other})",
                *(f"{ratios[gap]:.1f}" for gap in gaps),
            ]
        )
    means = [f"{significant(geometric_mean(ratios))} with {width} inputs" for width, ratios in sorted(by_width.items())]
    head = ["operator, zeros", "ours, 1e-6", "fastest other, 1e-6", "ratio at 1e-3", "at 1e-6", "at 1e-9"]
    met = {solver: [case[1e-6][solver]["reached"] for case in cases.values() if solver in case[1e-6]] for solver in OTHERS}
    how_often = listed([f"{solver} in {sum(reached)} of {len(reached)} cases" for solver, reached in met.items()])
    means_are = f"The geometric means of the ratios at 1e-6 are {listed(means)}."
    return noted(table(head, rows), f"{means_are} The gap of 1e-6 was met by {how_often}.")


def regression_times() -> str:
    """Rows that may not be negative, and rows with a ridge, beside the fastest of the others that met the gap."""
    cases: dict[tuple[str, int, str], dict[float, dict[str, Row]]] = {}
    for cell in read("regression").values():
        args = cell["keywords"]
        if "solver" in args and "ms per row" in cell:
            case = cases.setdefault((args["layer"], args["width"], args["model"]), {})
            case.setdefault(args["gap"], {})[args["solver"]] = cell
    rows, by_model = [], {}
    for (name, width, model), case in sorted(cases.items(), key=lambda item: (item[0][2], item[0])):
        ratios, texts = {}, []
        for gap, cells in sorted(case.items(), reverse=True):
            ours = cells["gramian"]["ms per row"]
            others = {solver: cell["ms per row"] for solver, cell in cells.items() if solver != "gramian" and cell["reached"]}
            first = min(others, key=lambda solver: others[solver])
            ratios[gap] = others[first] / ours
            texts += [significant(ours), f"{significant(others[first])} ({first})", f"{ratios[gap]:.1f}"]
        by_model.setdefault(model, []).append(ratios[1e-6])
        zeros = f"{case[1e-6]['gramian']['zeros']:.0%}".replace("%", " %")
        rows.append([f"{model}: {name.partition('.')[2]}, {width} inputs", zeros, *texts])
    head = ["ms per row", "zeros", "ours, 1e-3", "fastest other", "ratio", "ours, 1e-6", "fastest other", "ratio"]
    means = [f"{significant(geometric_mean(ratios))} for {model} rows" for model, ratios in by_model.items()]
    return noted(table(head, rows), f"The geometric means of the ratios at 1e-6 are {listed(means)}.")


def fista_gaps() -> str:
    """FISTA to a certified gap."""
    rows = [
        [row["operator"], f"{row['zeros']:.1%}", str(row["steps"]), f"{row['seconds']:.0f}", f"{row['relative_gap']:.1e}"]
        for row in read("fista_gap")["rows"]
    ]
    return table(["operator", "zeros", "steps", "s", "relative gap"], rows)


def scores() -> str:
    """Newton's iteration as printed beside one factorisation."""
    results = read("scaling")
    rows = [
        [str(row["width"]), significant(row["seconds"]), significant(row["as printed"]), f"{row['ratio']:.0f}"]
        for row in results["rows"]
    ]
    second, difference = (max(row[key] for row in results["rows"]) for key in ("second step", "difference"))
    return noted(
        table(["width", "ours, s", "as printed, s", "ratio"], rows),
        f"Medians of {results['repeats']}; the printed iteration "
        f"runs {results['iterations']} times, its second step is {second:.0e} of its first at most, and both scores agree to "
        f"{difference:.0e} of the largest.",
    )


def moments() -> str:
    """Second moments from float32 products, and where that was measured."""
    results = read("moments")
    names = {"gram": "G, of `sqrt(G_ii G_jj)`", "cross": "C, of `sqrt(E_ii G_jj)`", "drift": "E, of `sqrt(E_ii E_jj)`"}
    rows = [[title, f"{results['errors'][name]:.1e}"] for name, title in names.items()]
    kinds = ("float64", "float32")
    rows += [[f"seconds of a batch, {kind} products", significant(results["seconds"][kind])] for kind in kinds]
    rows += [[f"smallest eigenvalue of the largest, {kind}", f"{results['smallest eigenvalue'][kind]:.6e}"] for kind in kinds]
    where = {"cpu": "a CPU", "cuda": "a GPU"}[results["device"].partition(":")[0]]
    return noted(
        table(["what", "value"], rows), f"A layer of {results['width']} inputs on {where}. {threads(results['threads'])}"
    )
