"""Times on a GPU: a step beside its product, whole operators, a model, a layer of a large one, and the CPU beside it.

    python benchmarks/gpu.py [--problems FOLDER] [--device cuda|cpu] [--sections NAME ...] [--minutes 8] [--quick] [--out FILE]

The sections measure, in this order:

tests       the solver tests that need a GPU, as many as a minute has time for: how many passed and failed
steps       a FISTA step beside the float32 matrix product in it, p = q = 1024 to 8192; on cupy also with the product split
            into three of TF32 operands, and how far that is off
refits      `refit` on the problem files in FOLDER, half of the weights kept: by factorisation, by conjugate gradients, and as
            it chooses itself
model       a model of OPT-125M's shape with random weights, pruned by FISTAPruner with 128 windows of 2048 random tokens
layer       one decoder layer of LLaMA-3-8B's shape, pruned by Wanda with refit, FISTAPruner and `l0`, and 32 times its time
operators   `lasso` to a relative gap of 1e-6, `l0_admm` and `refit` at 50 % on the shapes of OPT-125M, LLaMA-7B and LLaMA-3-8B,
            the refit also by conjugate gradients whatever the size
processor   operators on the GPU beside numpy on this machine's CPU, and the ratio

No row is begun after --minutes, and the file names the sections that were cut short. Where cupy is installed it computes;
steps and the processor's operators are timed on torch as well. Weights and tokens are random but in `refits`, so figures are
those of a shape; real layers take more or fewer steps of `lasso`. Times of steps are medians of 5, the others are of one run
after a small one; the clock starts and stops when the device has finished. `--quick` shrinks all sizes, and `--device cpu`
tries the program without a GPU. The file is written after every row.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from common.places import Place, layer, places
from common.results import RESULTS, save

from gramian import prune
from gramian.adapters.data.problem_files import read_problem
from gramian.solvers import FISTA, L1, Quadratic, Solution, TopK, l0_admm, lambda_max, lasso, refit
from gramian.solvers.backend._xp import as_floating
from gramian.solvers.direct import gradients as by_gradients
from gramian.solvers.direct.gradients import Rates
from gramian.tables import table
from gramian.versions import versions

SHAPES = {
    "OPT-125M attention": (768, 768),
    "OPT-125M fc1": (3072, 768),
    "OPT-125M fc2": (768, 3072),
    "LLaMA-7B attention": (4096, 4096),
    "LLaMA-7B up": (11008, 4096),
    "LLaMA-7B down": (4096, 11008),
    "LLaMA-3-8B key": (1024, 4096),
    "LLaMA-3-8B up": (14336, 4096),
    "LLaMA-3-8B down": (4096, 14336),
}
COMPARED = {name: SHAPES[name] for name in list(SHAPES)[:3]} | {"512 rows of 4096": (512, 4096)}
HERE = Path(__file__).parent
Arguments = argparse.Namespace
Rows = Iterator[dict[str, Any]]
LAYERS = 32  # of LLaMA-3-8B
GAP = 1e-6


def tests(arguments: Arguments) -> Rows:
    """Counts of pytest on the tests that run on a GPU, within a minute."""
    seconds = 5 if arguments.quick else 60
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "tests/solvers"]
    started = time.perf_counter()
    try:
        done = subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True, timeout=seconds)
        shown, ended = done.stdout, True
    except subprocess.TimeoutExpired as cut:
        shown, ended = (cut.stdout or b"").decode(), False
    marks = "".join(line.partition(" [")[0] for line in shown.splitlines() if set(line.partition(" [")[0]) <= set(".sxXFE"))
    yield {
        "passed": marks.count("."), "failed": marks.count("F") + marks.count("E"), "all of them": ended,
        "seconds": time.perf_counter() - started, "said": "" if ended and done.returncode == 0 else shown[-2000:],
    }  # fmt: skip


def steps(arguments: Arguments) -> Rows:
    for place in places(arguments.device):
        for width in (64, 128) if arguments.quick else (1024, 2048, 4096, 8192):
            problem = layer(place, width, width, torch.float32)
            step, product = step_and_product(place, problem, FISTA())
            row = {"library": place.library, "p = q": width, "step ms": 1e3 * step, "product ms": 1e3 * product}
            row |= {"product TFLOP/s": 2 * width**3 / product / 1e12, "part of the rate": product / step}
            if place.library == "cupy" or arguments.quick:
                row["split step ms"] = 1e3 * step_and_product(place, problem, FISTA(split=True))[0]
                point = problem.double.anchor * 1.1
                wanted, point = problem.double.gradient(point), as_floating(point, like=problem.anchor)
                for name, gradient in (("", problem.gradient), ("split ", problem.split_gradient)):
                    off = gradient(point) - wanted
                    row[f"{name}error"] = float((off**2).sum() / (wanted**2).sum()) ** 0.5
            yield row


def refits(arguments: Arguments) -> Rows:
    """Either way of a refit, and the one that is chosen, on real layers: the best of two runs each."""
    place = places(arguments.device)[0]
    factorise, iterate = Rates(factor=1e30, product=1e-9, step=1e9, entry=0.0), Rates(1e-9, 1e30, 0.0, 0.0)
    for file in sorted(arguments.problems.glob("*.safetensors")) if arguments.problems else ():
        read = read_problem(file)[0]
        arrays = (torch.from_numpy(array).to(arguments.device) for array in (read.gram, read.anchor))
        problem = Quadratic(*(place.array(array) for array in arrays))
        mask = TopK(0.5).select(abs(problem.anchor) * problem.diagonal**0.5)
        row: dict[str, Any] = {"operator": file.stem, "library": place.library}
        row |= {"rows": problem.shape[0], "width": problem.shape[1]}
        for name, rates in (("factorised", factorise), ("gradients", iterate), ("chosen", None)):
            with nullcontext() if rates is None else patch.multiple(by_gradients, DEVICE=rates, PROCESSOR=rates):
                runs = [place.timed(partial(refit, problem, mask)) for _ in range(2)]
            row[f"{name} s"], solution = min(run[0] for run in runs), runs[-1][1]
            row[f"{name} residual"] = solution.certificate.residual
        better = min(row["factorised s"], row["gradients s"])
        yield row | {"chosen over better": row["chosen s"] / better}


def step_and_product(place: Place, problem: Quadratic, solver: FISTA, count: int = 20) -> tuple[float, float]:
    """Seconds of a step of FISTA and of the product in it, medians."""
    term = L1(1.0)
    first = solver.init(problem, term, problem.anchor)

    def walk() -> None:
        state = first
        for _ in range(count):
            state = solver.step(problem, term, state)

    def multiply() -> None:
        for _ in range(count):
            problem.anchor @ problem.gram

    times = []
    for work in (walk, multiply):
        work()  # the bound of the eigenvalue, kernels, handles: once
        times.append(statistics.median(place.timed(work)[0] for _ in range(5)) / count)
    return times[0], times[1]


def solved(place: Place, problem: Quadratic, gradients: bool) -> dict[str, Any]:
    """Seconds of the three solvers, and figures that show that they did their work."""
    mask = TopK(0.5).select(abs(problem.anchor) * problem.diagonal**0.5)
    term = L1(0.02 * float(lambda_max(problem)[0, 0]))
    record: dict[str, Any] = {}
    works: dict[str, Callable[[], Solution]] = {
        "lasso": lambda: lasso(problem, term, tol=GAP),
        "l0": lambda: l0_admm(problem, TopK(0.5)),
        "refit": lambda: refit(problem, mask),
    }
    with place.memory(record):
        for name, work in works.items():
            record[f"{name} s"], solution = place.timed(work)
            if name == "lasso":
                record["lasso gap"] = solution.certificate.relative_gap
                record["lasso zeros"] = float((solution.weights == 0).sum()) / (problem.shape[0] * problem.shape[1])
            else:
                record[f"{name} error"] = solution.certificate.relative_error
        if gradients:
            dear = Rates(factor=1e-9, product=1e30, step=0.0, entry=0.0)  # to factorise
            with patch.multiple(by_gradients, DEVICE=dear, PROCESSOR=dear):
                record["refit by gradients s"], solution = place.timed(works["refit"])
            record["refit by gradients residual"] = solution.certificate.residual
    return record


def shrunk(shape: tuple[int, int], quick: bool) -> tuple[int, int]:
    """The shape, or a tiny one like it."""
    return (max(8, shape[0] // 64), max(16, shape[1] // 64)) if quick else shape


def operators(arguments: Arguments) -> Rows:
    place = places(arguments.device)[0]
    solved(place, layer(place, 16, 32), True)  # kernels and handles
    for name, shape in SHAPES.items():
        rows, width = shrunk(shape, arguments.quick)
        record = solved(place, layer(place, rows, width), True)
        yield {"operator": name, "library": place.library, "rows": rows, "width": width} | record


def processor(arguments: Arguments) -> Rows:
    for name, shape in COMPARED.items():
        rows, width = shrunk(shape, arguments.quick)
        cpu = solved(Place("numpy", "cpu"), layer(Place("numpy", "cpu"), rows, width), False)
        for place in places(arguments.device):
            record = solved(place, layer(place, rows, width), False)
            row: dict[str, Any] = {"operator": name, "library": place.library, "rows": rows, "width": width}
            for solver in ("lasso", "l0", "refit"):
                before, after = cpu[f"{solver} s"], record[f"{solver} s"]
                row |= {f"{solver} numpy s": before, f"{solver} s": after, f"{solver} ratio": before / after}
            yield row


def pruned(place: Place, model: Any, vocabulary: int, windows: tuple[int, int], method: str, **options: Any) -> dict[str, Any]:
    """Seconds and bytes of `prune` on a model with random tokens."""
    tokens = torch.randint(0, vocabulary, windows, generator=torch.Generator().manual_seed(0))
    record: dict[str, Any] = {"method": method, "library": place.library, "windows": list(windows)}
    with place.memory(record):
        record["seconds"], report = place.timed(
            lambda: prune(model, tokens, method=method, sparsity=0.5, progress=False, **options)
        )
    return record | {"mean error": report.mean_error, "sparsity": report.sparsity, "operators": len(report.operators)}


def model(arguments: Arguments) -> Rows:
    from transformers import OPTConfig, OPTForCausalLM

    tiny = {"hidden_size": 32, "ffn_dim": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 128}
    config = OPTConfig(**(tiny | {"word_embed_proj_dim": 32} if arguments.quick else {}))  # by default it is OPT-125M
    windows = (8, 32) if arguments.quick else (128, 2048)
    torch.manual_seed(0)
    with torch.device(arguments.device):
        network = OPTForCausalLM(config).eval()
    yield pruned(places(arguments.device)[0], network, config.vocab_size, windows, "fistapruner")


def decoder(arguments: Arguments) -> Rows:
    from transformers import LlamaConfig, LlamaForCausalLM

    quick = arguments.quick
    config = LlamaConfig(
        vocab_size=128,
        hidden_size=64 if quick else 4096,
        intermediate_size=224 if quick else 14336,
        num_hidden_layers=1,
        num_attention_heads=4 if quick else 32,
        num_key_value_heads=2 if quick else 8,
        dtype="float32" if quick else "bfloat16",
    )
    for method, keywords in (("wanda", {"refit": "support"}), ("fistapruner", {}), ("l0", {})):
        torch.manual_seed(0)
        with torch.device(arguments.device):
            network = LlamaForCausalLM(config).to(config.dtype).eval()
        record = pruned(places(arguments.device)[0], network, 128, (8, 32) if quick else (128, 2048), method, **keywords)
        yield record | keywords | {f"{LAYERS} layers, minutes": LAYERS * record["seconds"] / 60}


SECTIONS: dict[str, Callable[[Arguments], Rows]] = {
    "tests": tests, "steps": steps, "refits": refits, "model": model, "layer": decoder, "operators": operators,
    "processor": processor,
}  # fmt: skip


def machine(device: str) -> dict[str, Any]:
    about: dict[str, Any] = {"device": platform.processor() or platform.machine(), "threads": torch.get_num_threads()}
    if device == "cuda":
        about |= {"device": torch.cuda.get_device_name(), "cuda of torch": torch.version.cuda}
        about["memory GiB"] = torch.cuda.get_device_properties(0).total_memory / 2**30
        if places(device)[0].library == "cupy":
            import cupy

            about |= {"cupy": cupy.__version__, "cuda driver": cupy.cuda.runtime.driverGetVersion()}
    return about | {"versions": dict(versions())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=Path, metavar="FOLDER", help="where problem files are, for the section refits")
    parser.add_argument("--minutes", type=float, default=8.0, help="after which no row is begun (default %(default)s)")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="(default %(default)s)")
    parser.add_argument("--sections", nargs="+", choices=list(SECTIONS), default=list(SECTIONS), help="(default: all)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to try the program")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the result file (default: results/gpu-DEVICE.json)")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no GPU here; --device cpu --quick tries the program without one")
    result: dict[str, Any] = {"machine": machine(arguments.device), "quick": arguments.quick, "sections": {}}
    name = "-".join(result["machine"]["device"].lower().split())
    out = arguments.out or RESULTS / f"gpu-{name}.json"
    end, result["cut short"] = time.perf_counter() + 60 * arguments.minutes, []
    for section in [name for name in SECTIONS if name in arguments.sections]:
        rows = result["sections"].setdefault(section, [])
        print(f"== {section}", flush=True)
        if time.perf_counter() < end:
            for row in SECTIONS[section](arguments):
                rows.append(row)
                print(row, flush=True)
                save(out, result)
                if time.perf_counter() >= end:
                    break
        if time.perf_counter() >= end:
            result["cut short"].append(section)
            save(out, result)
            continue
        head = list(dict.fromkeys(column for row in rows for column in row))
        cells = [[row.get(column, "") for column in head] for row in rows]
        print(table(head, [[f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row] for row in cells]))
    if result["cut short"]:
        print(f"out of time in {', '.join(result['cut short'])}: --minutes gives more")


if __name__ == "__main__":
    main()
