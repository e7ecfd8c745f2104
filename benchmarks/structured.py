"""Perplexity of smaller models: heads and hidden channels removed from the blocks by every method and allocation.

    python benchmarks/structured.py --text FOLDER [--cells REGEX] [--out FILE] [--models FOLDER] [--speed]

`common/protocol.py` says what FOLDER holds and how perplexity is measured. A ratio is the part of all parameters in the blocks
that is removed; it is counted from the tensors before and after. gemma-3-270m has four query heads and one key/value head a
block, so of attention only query heads with their slices of o_proj can be removed.

Methods of hidden units (`tasp`, `snip`, `llm-pruner`, `cfsp`) keep attention whole and remove all parameters from the MLPs.

Ours is `numerical` with the compensated score and allocation by `loss`. Its paper's score is `newton`, with the paper's own
ranking (allocation by `score`) and the dense model's outputs as target (`target_blend` 1). `self` is text sampled from the
model, and `identity` needs no text at all. The number and the length of calibration windows (Numerical Pruning, Figure 4 and
Table 4) are varied at one ratio.

--models keeps the pruned models. --speed measures, instead of the cells, tokens per second of prefill and decode, peak memory
and the time of the MLPs, of the dense model, of pruned ones and of those that --models has, side by side.
"""

from __future__ import annotations

import argparse
import copy
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from common.cells import resumed
from common.protocol import TEXTS, Protocol, bytes_held
from common.results import RESULTS, save, summary
from figures.markdown import figure
from torch import nn

import gramian
from gramian.adapters import prune
from gramian.adapters.data.generation import sampled_tokens
from gramian.adapters.models.block_lists import blocks_of
from gramian.adapters.models.loading import load
from gramian.tables import table
from gramian.versions import versions

RATIOS = (0.2, 0.5)
OURS = {"method": "numerical", "allocation": "loss", "options": {"score": "compensated"}}
PAPER = {"method": "numerical", "allocation": "score", "options": {"score": "newton"}, "target_blend": 1.0}
BASELINES = {
    "random": ("equal",),
    "magnitude-l1": ("equal", "score"),
    "magnitude-l2": ("equal",),
    "wanda-sp": ("equal", "score"),
    "flap": ("score", "equal"),
    "tasp": ("score", "equal"),
    "snip": ("score",),
    "llm-pruner": ("score",),
    "cfsp": ("angles",),
}
RIVALS = ("flap", "wanda-sp")  # at every ratio
STEPS = 4  # of a ratio that is met little by little, as Adapt-Pruner does, without training in between
OUTPUT = {"method": "greedy-output", "target_blend": 1.0}
TIMES = 7  # repetitions of every timing, of which the median counts


def cells() -> dict[str, dict[str, Any]]:
    """Name -> keywords of `prune`, and `windows` or `calibration` where the calibration tokens are not the protocol's.

    A method that does not compensate does not depend on its inputs, so it takes dense ones, which are one pass less."""
    found: dict[str, dict[str, Any]] = {}
    for ratio in RATIOS:
        percent = f"{ratio:.0%}"
        for allocation in ("loss", "score", "equal"):
            found[f"{percent} compensated, {allocation}"] = {**OURS, "allocation": allocation, "ratio": ratio}
        for allocation in ("score", "loss", "equal"):
            found[f"{percent} newton, {allocation}"] = {**PAPER, "allocation": allocation, "ratio": ratio}
        found[f"{percent} compensated, equal, round_to 64"] = {**OURS, "allocation": "equal", "round_to": 64, "ratio": ratio}
        found[f"{percent} newton, score, not compensated"] = {
            **PAPER, "compensate": False, "calibrate_on": "dense", "ratio": ratio
        }  # fmt: skip
        for method, allocations in BASELINES.items():
            for allocation in allocations:
                found[f"{percent} {method}, {allocation}"] = baseline(method, allocation, ratio)
        for source, calibration in (("calibrated", {}), ("self", {"calibration": "self"})):
            for producers in (False, True):
                name = f"{percent} greedy-output, {source}{', refit_producers' if producers else ''}"
                found[name] = {**OUTPUT, **calibration, "refit_producers": producers, "ratio": ratio}
        found[f"{percent} greedy-output, identity, not compensated"] = {
            **OUTPUT, "options": {"moment": "identity", "tau": 0}, "compensate": False, "calibrate_on": "dense", "ratio": ratio
        }  # fmt: skip
    found["25% tasp, score"] = baseline("tasp", "score", 0.25)
    for ratio in (0.1, 0.3, 0.7):
        found[f"{ratio:.0%} compensated, loss"] = {**OURS, "ratio": ratio}
        for method in RIVALS:
            for allocation in BASELINES[method]:
                found[f"{ratio:.0%} {method}, {allocation}"] = baseline(method, allocation, ratio)
    for ratio in RATIOS:
        found[f"{ratio:.0%} compensated, loss, target_blend 1"] = {**OURS, "target_blend": 1.0, "ratio": ratio}
        found[f"{ratio:.0%} compensated, loss, swap_search"] = {**OURS, "swap_search": True, "ratio": ratio}
    found["20% llm-pruner, score, vector"] = {**baseline("llm-pruner", "score", 0.2), "options": {"importance": "vector"}}
    found["20% wanda-sp, angles"] = baseline("wanda-sp", "angles", 0.2)
    found["20% compensated, angles, channels alone"] = {**OURS, "allocation": "angles", "include": "mlp", "ratio": 0.2}
    found["20% cfsp, angles, activations"] = {**baseline("cfsp", "angles", 0.2), "options": {"within": "activations"}}
    found[f"20% cfsp, angles, in {STEPS} steps"] = {**found["20% cfsp, angles"], "steps": STEPS}
    for count, length in ((8, 512), (16, 512), (64, 512), (128, 128), (16, 1024)):
        found[f"20% compensated, loss, {count} windows of {length}"] = {**OURS, "ratio": 0.2, "windows": [count, length]}
    return found


def baseline(method: str, allocation: str, ratio: float) -> dict[str, Any]:
    """A method that makes up for nothing in the consumer's weights."""
    return {"method": method, "allocation": allocation, "calibrate_on": "dense", "ratio": ratio}


def added_up(reports: Sequence[Any]) -> dict[str, Any]:
    """What the reports of runs one after the other have in common with that of one; their errors, of models in between, not."""
    return {
        "ratio": 1 - math.prod(1 - report.ratio for report in reports),
        **{of: [getattr(reports[0], of)[0], getattr(reports[-1], of)[1]] for of in ("parameters", "block_parameters")},
        "seconds": sum(report.seconds for report in reports),
        "mean_error": None,
        "mean_heldout_error": None,
    }


def show(results: Mapping[str, Any]) -> None:
    rows = [
        [
            name,
            f"{cell['report']['ratio']:.2%}" if "report" in cell else "-",
            "{:,} -> {:,}".format(*cell["report"]["parameters"]) if "report" in cell else "-",
            figure(cell["report"]["mean_error"] if "report" in cell else None),
            figure(cell["report"]["mean_heldout_error"] if "report" in cell else None),
            *(f"{cell['perplexity'][text]:.2f}" if text in cell["perplexity"] else "-" for text in TEXTS),
            f"{cell['report']['seconds']:.0f}" if "report" in cell else "-",
        ]
        for name, cell in results.items()
    ]
    print(table(["model", "removed", "parameters", "error", "held-out", "WikiText-2", "PTB", "prune s"], rows))


def speed(protocol: Protocol, kept: Path | None) -> list[dict[str, Any]]:
    """A row for the dense model, each of three pruned to equal widths, and those that were kept, timed in turn: only their
    widths matter."""
    models = {"dense": protocol.model}
    few = protocol.calibration.windows[:1]
    for ratio in RATIOS:
        models[f"{ratio:.0%}"] = copy.deepcopy(protocol.model)
        report = prune(models[f"{ratio:.0%}"], few, method="magnitude-l2", ratio=ratio)
        print(f"{ratio:.0%}: {report.ratio:.2%} of the parameters inside blocks removed")
    models["half of the MLP"] = copy.deepcopy(protocol.model)
    prune(models["half of the MLP"], few, method="magnitude-l2", ratio=mlp_part(protocol.model) / 2, include="mlp")
    for place in sorted(kept.iterdir()) if kept is not None else ():
        models[place.name], _ = load(place)
    prompt = protocol.windows["wikitext2"][:1, :512]
    hidden = torch.randn(1, 512, protocol.model.config.hidden_size)
    tasks: dict[str, Callable[[Any], object]] = {
        "prefill": lambda model: model(prompt, logits_to_keep=1),
        "decode": lambda model: model.generate(prompt[:, :16], max_new_tokens=32, min_new_tokens=32, do_sample=False),
        "mlp": lambda model: [block.mlp(hidden) for block in blocks_of(model)],
    }
    seconds: dict[tuple[str, str], list[float]] = {(task, name): [] for task in tasks for name in models}
    with torch.no_grad():
        for turn in range(TIMES + 1):
            for task, work in tasks.items():
                for name, model in models.items():
                    started = time.perf_counter()
                    work(model)
                    if turn:  # the first warms up
                        seconds[task, name].append(time.perf_counter() - started)
    taken = {key: statistics.median(values) for key, values in seconds.items()}
    return [
        {
            "model": name,
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "block_parameters": sum(parameter.numel() for parameter in blocks_of(model).parameters()),
            "prefill_tokens_per_second": prompt.shape[1] / taken["prefill", name],
            "decode_tokens_per_second": 32 / taken["decode", name],
            "mlp_seconds": taken["mlp", name],
            "mlp_speedup": taken["mlp", "dense"] / taken["mlp", name],
            "weights_bytes": sum(parameter.numel() * parameter.element_size() for parameter in model.parameters()),
            "activation_bytes": activation_bytes(model, prompt),
        }
        for name, model in models.items()
    ]


def mlp_part(model: nn.Module) -> float:
    """Part of the parameters inside the blocks that belongs to the MLPs."""
    blocks = blocks_of(model)
    inside = sum(parameter.numel() for parameter in blocks.parameters())
    return sum(parameter.numel() for block in blocks for parameter in block.mlp.parameters()) / inside


def activation_bytes(model: Any, prompt: torch.Tensor) -> int:
    """The most memory that a prefill holds beside the weights."""
    with torch.no_grad():
        return bytes_held(lambda: model(prompt, logits_to_keep=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True, metavar="FOLDER", help="where the protocol's texts are")
    parser.add_argument("--cells", default="", metavar="REGEX", help="run only cells whose name the expression finds")
    parser.add_argument("--out", type=Path, default=RESULTS / "structured.json", metavar="FILE", help="the result file")
    parser.add_argument("--models", type=Path, metavar="FOLDER", help="where pruned models are kept")
    parser.add_argument("--speed", action="store_true", help="measure speed and memory instead, into *_speed.json")
    arguments = parser.parse_args()
    if arguments.speed:
        rows = speed(Protocol.load(arguments.text), arguments.models)
        path = arguments.out.with_name(f"{arguments.out.stem}_speed.json")
        save(path, {"threads": torch.get_num_threads(), "versions": dict(versions()), "rows": rows})
        head = ["model", "parameters", "prefill/s", "decode/s", "MLP speed-up", "weights MB", "activations MB"]
        print(
            table(
                head,
                [
                    [
                        row["model"], f"{row['parameters']:,}", f"{row['prefill_tokens_per_second']:.0f}",
                        f"{row['decode_tokens_per_second']:.1f}", f"{row['mlp_speedup']:.2f}",
                        f"{row['weights_bytes'] / 1e6:.0f}", f"{row['activation_bytes'] / 1e6:.0f}",
                    ]
                    for row in rows
                ],
            )
        )  # fmt: skip
        return
    losses = arguments.out.with_suffix("")
    losses.mkdir(parents=True, exist_ok=True)
    loaded = cache(lambda: Protocol.load(arguments.text))
    own = cache(lambda: sampled_tokens(loaded().model, loaded().tokenizer, samples=32, length=512, seed=0))

    def run(name: str, keywords: Mapping[str, Any]) -> dict[str, Any]:
        protocol = loaded()
        model = copy.deepcopy(protocol.model)
        windows = keywords.get("windows")
        tokens = protocol.drawn(*windows) if windows else own() if "calibration" in keywords else protocol.calibration
        args = {key: value for key, value in keywords.items() if key not in ("windows", "calibration", "steps")}
        steps = keywords.get("steps", 1)
        reports = []
        for _ in range(steps):
            step = {**args, "ratio": args["ratio"] if steps == 1 else 1 - (1 - args["ratio"]) ** (1 / steps)}
            reports.append(prune(model, tokens, heldout=protocol.heldout, **step))
            print(reports[-1], flush=True)
        report = reports[-1]
        if arguments.models is not None:
            gramian.save(model, protocol.tokenizer, arguments.models / name, report=report)
        texts = ("wikitext2",) if windows else tuple(TEXTS)
        found = {"report": summary(report.to_dict(), "modules"), "perplexity": protocol.evaluate(model, texts, losses, name)}
        return found if steps == 1 else {**found, "report": {**found["report"], **added_up(reports)}}

    show(resumed(cells(), arguments.cells, arguments.out, run))


if __name__ == "__main__":
    main()
