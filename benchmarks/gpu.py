"""Times on a GPU: a step beside its product, whole operators, a model, a layer of a large one, and the CPU beside it.

    python benchmarks/gpu.py [--device cuda|cpu] [--sections steps operators model layer processor] [--quick] [--out FILE]

The sections measure:

steps       a FISTA step beside the float32 matrix product in it, p = q = 1024 to 8192
operators   `lasso` to a relative gap of 1e-6, `l0_admm` and `refit` at 50 % on the shapes of OPT-125M, LLaMA-7B and LLaMA-3-8B,
            the refit also by conjugate gradients whatever the size
model       a model of OPT-125M's shape with random weights, pruned by FISTAPruner with 128 windows of 2048 random tokens
layer       one decoder layer of LLaMA-3-8B's shape, pruned by FISTAPruner, `l0` and Wanda with refit, and 32 times its time
processor   operators on the GPU beside numpy on this machine's CPU, and the ratio

Where cupy is installed it computes; steps and the processor's operators are timed on torch as well. Weights and tokens are
random, so figures are those of a shape; real layers take more or fewer steps of `lasso`. Times of steps are medians of 5, the
others are of one run after a small one; the clock starts and stops when the device has finished. `--quick` shrinks all sizes,
and `--device cpu` tries the program without a GPU. The file is written after every section.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from common.results import RESULTS, save

from gramian import prune
from gramian.solvers import FISTA, L1, Quadratic, Solution, TopK, l0_admm, lambda_max, lasso, refit
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
LAYERS = 32  # of LLaMA-3-8B
GAP = 1e-6


@dataclass(frozen=True)
class Place:
    """Where arrays live: a library, and torch's name of the device, on which random numbers are drawn."""

    library: str
    device: str

    def array(self, tensor: torch.Tensor) -> Any:
        """A tensor of this device as an array of the library, without a copy."""
        if self.library == "numpy":
            return tensor.numpy()
        if self.library == "cupy":
            import cupy

            return cupy.from_dlpack(tensor)
        return tensor

    def wait(self) -> None:
        """Return when the device has finished."""
        if self.device == "cuda":
            torch.cuda.synchronize()  # of all streams, cupy's too

    def timed(self, work: Callable[[], Any]) -> tuple[float, Any]:
        """Seconds of work, and what it returns."""
        self.wait()
        started = time.perf_counter()
        result = work()
        self.wait()
        return time.perf_counter() - started, result

    @contextmanager
    def memory(self, record: dict[str, Any]) -> Iterator[None]:
        """The most memory in use on the device, sampled 20 times a second: what torch, cupy and CUDA itself hold together."""
        if self.device == "cpu":
            yield
            return
        done, most = threading.Event(), 0

        def watch() -> None:
            nonlocal most
            while not done.wait(0.05):
                free, total = torch.cuda.mem_get_info()
                most = max(most, total - free)

        release()
        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()
        record["peak GiB"] = most / 2**30


def release() -> None:
    """Make both libraries give back the memory that they keep for later, so that only what follows counts."""
    torch.cuda.empty_cache()
    if "cupy" in sys.modules:
        sys.modules["cupy"].get_default_memory_pool().free_all_blocks()


def places(device: str) -> list[Place]:
    """The libraries that compute on a device, the one that the toolkit takes first."""
    if device == "cpu":
        return [Place("numpy", "cpu"), Place("torch", "cpu")]
    try:
        import cupy

        cupy.cuda.runtime.getDeviceCount()
    except Exception as error:  # not installed, or without a driver
        print(f"without cupy: {error}")
        return [Place("torch", "cuda")]
    return [Place("cupy", "cuda"), Place("torch", "cuda")]


def layer(place: Place, rows: int, width: int, dtype: torch.dtype = torch.float64) -> Quadratic:
    """A layer of gaussian weights whose inputs have twice as many tokens as channels: channels have sizes from 1 to 1/10, and
    there are a few directions in which all move together."""
    generator = torch.Generator(place.device).manual_seed(width)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, device=place.device)

    together = max(1, width // 16)
    inputs = normal(2 * width, width) * torch.logspace(0, -1, width, device=place.device)
    inputs = (inputs + normal(2 * width, together) @ normal(together, width) / together).to(torch.float64)
    gram = (inputs.T @ inputs).to(dtype)
    return Quadratic(place.array(gram), place.array(normal(rows, width).to(dtype)))


def steps(device: str, quick: bool) -> list[dict[str, Any]]:
    found = []
    for place in places(device):
        for width in (64, 128) if quick else (1024, 2048, 4096, 8192):
            step, product = step_and_product(place, width)
            row = {"library": place.library, "p = q": width, "step ms": 1e3 * step, "product ms": 1e3 * product}
            found.append(row | {"product TFLOP/s": 2 * width**3 / product / 1e12, "part of the rate": product / step})
            print(found[-1], flush=True)
    return found


def step_and_product(place: Place, width: int, count: int = 20) -> tuple[float, float]:
    """Seconds of a step of FISTA and of the product in it, medians."""
    problem, solver, term = layer(place, width, width, torch.float32), FISTA(), L1(1.0)
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


def operators(device: str, quick: bool) -> list[dict[str, Any]]:
    place, found = places(device)[0], []
    solved(place, layer(place, 16, 32), True)  # kernels and handles
    for name, shape in SHAPES.items():
        rows, width = shrunk(shape, quick)
        record = solved(place, layer(place, rows, width), True)
        found.append({"operator": name, "library": place.library, "rows": rows, "width": width} | record)
        print(found[-1], flush=True)
    return found


def processor(device: str, quick: bool) -> list[dict[str, Any]]:
    found = []
    for name, shape in COMPARED.items():
        rows, width = shrunk(shape, quick)
        cpu = solved(Place("numpy", "cpu"), layer(Place("numpy", "cpu"), rows, width), False)
        for place in places(device):
            record = solved(place, layer(place, rows, width), False)
            row: dict[str, Any] = {"operator": name, "library": place.library, "rows": rows, "width": width}
            for solver in ("lasso", "l0", "refit"):
                before, after = cpu[f"{solver} s"], record[f"{solver} s"]
                row |= {f"{solver} numpy s": before, f"{solver} s": after, f"{solver} ratio": before / after}
            found.append(row)
            print(found[-1], flush=True)
    return found


def pruned(place: Place, model: Any, vocabulary: int, windows: tuple[int, int], method: str, **options: Any) -> dict[str, Any]:
    """Seconds and bytes of `prune` on a model with random tokens."""
    tokens = torch.randint(0, vocabulary, windows, generator=torch.Generator().manual_seed(0))
    record: dict[str, Any] = {"method": method, "library": place.library, "windows": list(windows)}
    with place.memory(record):
        record["seconds"], report = place.timed(
            lambda: prune(model, tokens, method=method, sparsity=0.5, progress=False, **options)
        )
    return record | {"mean error": report.mean_error, "sparsity": report.sparsity, "operators": len(report.operators)}


def model(device: str, quick: bool) -> list[dict[str, Any]]:
    from transformers import OPTConfig, OPTForCausalLM

    tiny = {"hidden_size": 32, "ffn_dim": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 128}
    config = OPTConfig(**(tiny | {"word_embed_proj_dim": 32} if quick else {}))  # by default it is OPT-125M
    windows = (8, 32) if quick else (128, 2048)
    torch.manual_seed(0)
    with torch.device(device):
        network = OPTForCausalLM(config).eval()
    return [pruned(places(device)[0], network, config.vocab_size, windows, "fistapruner")]


def decoder(device: str, quick: bool) -> list[dict[str, Any]]:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=128,
        hidden_size=64 if quick else 4096,
        intermediate_size=224 if quick else 14336,
        num_hidden_layers=1,
        num_attention_heads=4 if quick else 32,
        num_key_value_heads=2 if quick else 8,
        dtype="float32" if quick else "bfloat16",
    )
    found = []
    for method, keywords in (("fistapruner", {}), ("l0", {}), ("wanda", {"refit": True})):
        torch.manual_seed(0)
        with torch.device(device):
            network = LlamaForCausalLM(config).to(config.dtype).eval()
        record = pruned(places(device)[0], network, 128, (8, 32) if quick else (128, 2048), method, **keywords)
        found.append(record | keywords | {f"{LAYERS} layers, minutes": LAYERS * record["seconds"] / 60})
        print(found[-1], flush=True)
    return found


Section = Callable[[str, bool], list[dict[str, Any]]]
SECTIONS: dict[str, Section] = {
    "steps": steps, "operators": operators, "model": model, "layer": decoder, "processor": processor
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
    for section in arguments.sections:
        rows = SECTIONS[section](arguments.device, arguments.quick)
        print(f"== {section}")
        head = list(dict.fromkeys(column for row in rows for column in row))
        cells = [[row.get(column, "") for column in head] for row in rows]
        print(table(head, [[f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row] for row in cells]))
        result["sections"][section] = rows
        save(out, result)


if __name__ == "__main__":
    main()
