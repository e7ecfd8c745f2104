"""Fine-tuning after half of the hidden units were removed: what it costs, and what it reaches (TASP, Tables 1 and 2); and what
refits reach without fine-tuning (Greedy Output Approximation, Algorithms 2 to 4).

    python benchmarks/finetune.py --text FOLDER [--cells REGEX] [--steps N] [--out FILE] [--speed]

Models of four architectures over bytes are trained for seconds on wikitext2.valid.txt in FOLDER. They have two narrow layers,
so that every hidden unit counts, and no dropout. Then half of the hidden units of their feed-forward modules are removed, by
one ranking over all modules, and the smaller model is fine-tuned, in half as many steps, on the first four fifths of
ptb.test.txt; its loss is measured on the rest, in nats per byte, before and after. T5 predicts the second half of a window from
the first. Three seeds draw weights and batches, and the table shows mean and standard deviation over them. `greedy-output` is
not fine-tuned: nothing is refitted, or the kept weights are, or the producers of every module as well. T5 is pruned on the
dense model's activations, for which a refit of producers changes nothing.

--speed measures seconds, parameters and memory of a step of fine-tuning. The dense model, one with as many weights masked (kept
at zero after every step, as an unstructured method would have it) and the smaller one take turns; all have four layers and are
four times as wide.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from common.byte_models import held_loss, step, train, windows_of
from common.cells import resumed
from common.protocol import bytes_held
from common.results import RESULTS, save
from transformers import AutoConfig

from gramian.adapters import prune
from gramian.adapters.methods.unit_sets import unit_set_of
from gramian.adapters.models.tasks import stock_class
from gramian.adapters.models.unit_groups import unit_groups_of
from gramian.adapters.models.units import UnitGroup, operator
from gramian.adapters.removal.amount import block_parameters
from gramian.tables import table
from gramian.versions import versions

LENGTH, SEEDS, TIMES = 64, (0, 1, 2), 7
BATCH, RATE, TUNING_RATE = 32, 1e-2, 1e-3
NARROW, WIDE = (64, 2), (256, 4)  # width and layers, to be trained and to be timed
NO_SPECIAL = {"vocab_size": 256, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None}


def shapes(width: int, layers: int) -> dict[str, dict[str, Any]]:
    """Keywords of configurations, by architecture: four heads, and twice the width of hidden units, or 3 / 2 where gated."""
    return {
        "gpt2": {
            "n_embd": width, "n_inner": 2 * width, "n_layer": layers, "n_head": 4, "n_positions": LENGTH, "resid_pdrop": 0.0,
            "attn_pdrop": 0.0, "embd_pdrop": 0.0, **NO_SPECIAL,
        },
        "opt": {
            "hidden_size": width, "word_embed_proj_dim": width, "ffn_dim": 2 * width, "num_hidden_layers": layers,
            "num_attention_heads": 4, "max_position_embeddings": LENGTH, "dropout": 0.0, **NO_SPECIAL,
        },
        "llama": {
            "hidden_size": width, "intermediate_size": 3 * width // 2, "num_hidden_layers": layers, "num_attention_heads": 4,
            "max_position_embeddings": LENGTH, **NO_SPECIAL,
        },
        "t5": {
            "d_model": width, "d_kv": width // 4, "d_ff": 2 * width, "num_layers": layers, "num_heads": 4, "dropout_rate": 0.0,
            "decoder_start_token_id": 0, "vocab_size": 256, "eos_token_id": None,
        },
    }  # fmt: skip


ARCHITECTURES = tuple(shapes(*NARROW))
METHODS: dict[str, dict[str, Any]] = {
    "dense": {},
    **{name: {"method": name, "compensate": False} for name in ("tasp", "snip", "magnitude-l2", "random")},
    "greedy-output": {"method": "greedy-output", "compensate": False},
    "greedy-output, refitted": {"method": "greedy-output", "compensate": True, "target_blend": 1.0},
    "greedy-output, refit_producers": {"method": "greedy-output", "compensate": True, "refit_producers": True},
}
HALF = 0.5


def fresh(architecture: str, seed: int, width: int, layers: int) -> Any:
    """A model with random weights, drawn by the seed, which batches go on from."""
    torch.manual_seed(seed)
    config = AutoConfig.for_model(architecture, **shapes(width, layers)[architecture])
    return stock_class(config)(config)


def channels_of(model: Any) -> list[UnitGroup]:
    """The feed-forward modules."""
    return [group for group in unit_groups_of(model).values() if group.structure.unit_size is None]


def halved(model: Any, windows: torch.Tensor, how: Mapping[str, Any]) -> Any:
    """The model without half of its hidden units, which one ranking over all modules chose. how: keywords."""
    channels = channels_of(model)
    inside = sum(group.units * unit_set_of(model, group).cost for group in channels)
    include = "|".join(f"^{group.name}$" for group in channels)
    smaller, ratio = copy.deepcopy(model), HALF * inside / block_parameters(model)
    prune(smaller, windows, ratio=ratio, allocation="score", include=include, progress=False, **how)
    return smaller


class Texts:
    """Windows to train on, to fine-tune on, and to evaluate on."""

    def __init__(self, folder: Path) -> None:
        self.first = windows_of((folder / "wikitext2.valid.txt").read_text(encoding="utf-8"), LENGTH)
        task = windows_of((folder / "ptb.test.txt").read_text(encoding="utf-8"), LENGTH)
        count = len(task) * 4 // 5
        self.tuned, self.evaluated = task[:count], task[count:]


def cells(steps: int) -> dict[str, dict[str, Any]]:
    """Name -> architecture, method, seed and steps."""
    return {
        f"{architecture} {method} {seed}": {"architecture": architecture, "method": method, "seed": seed, "steps": steps}
        for architecture in ARCHITECTURES
        for seed in SEEDS
        for method in METHODS
        if not (architecture == "t5" and method.endswith("refit_producers"))
    }


def runner(texts: Texts) -> Any:
    """What runs a cell; models are trained once for all methods."""

    @cache
    def trained(architecture: str, seed: int, steps: int) -> Any:
        model = fresh(architecture, seed, *NARROW)
        train(model, texts.first, steps, rate=RATE, batch=BATCH)
        return model

    def run(name: str, cell: Mapping[str, Any]) -> dict[str, Any]:
        model = trained(cell["architecture"], cell["seed"], cell["steps"])
        calibration = texts.tuned[:64]
        how = METHODS[cell["method"]]
        tuned = halved(model, calibration, how) if how else copy.deepcopy(model)
        parameters = sum(each.numel() for each in tuned.parameters())
        before = held_loss(tuned, texts.evaluated)
        if cell["method"].startswith("greedy-output"):
            return {"parameters": parameters, "before": before}
        torch.manual_seed(1000 + cell["seed"])
        started = time.perf_counter()
        steps = cell["steps"] // 2
        train(tuned, texts.tuned, steps, rate=TUNING_RATE, batch=BATCH)
        seconds = (time.perf_counter() - started) / steps
        return {"parameters": parameters, "before": before, "after": held_loss(tuned, texts.evaluated), "step_seconds": seconds}

    return run


def spread(figures: list[float]) -> str:
    """Mean and standard deviation, where there are two or more; a dash for nothing."""
    if not figures:
        return "-"
    deviation = f" +- {statistics.stdev(figures):.4f}" if len(figures) > 1 else ""
    return f"{statistics.mean(figures):.4f}{deviation}"


def show(results: Mapping[str, Any]) -> None:
    rows = []
    for architecture in ARCHITECTURES:
        for method in METHODS:
            found = [results[name] for seed in SEEDS if (name := f"{architecture} {method} {seed}") in results]
            if found:
                shown = [spread([each[key] for each in found if key in each]) for key in ("before", "after")]
                rows.append([architecture, method, f"{found[0]['parameters']:,}", *shown, str(len(found))])
    print(table(["model", "method", "parameters", "loss before", "fine-tuned", "seeds"], rows))


class Masked:
    """A model whose smallest feed-forward weights, half of them, are kept at zero."""

    def __init__(self, model: Any) -> None:
        groups = channels_of(model)
        names = {f"{group.block}.{path}" for group in groups for path, _ in group.structure.producers}
        self.weights = [operator(model, name).weight for name in sorted(names | {group.name for group in groups})]
        self.masks = [weight.detach().abs() > weight.detach().abs().median() for weight in self.weights]

    def apply(self) -> None:
        with torch.no_grad():
            for weight, mask in zip(self.weights, self.masks):
                weight.mul_(mask)


def speed(texts: Texts) -> list[dict[str, Any]]:
    """A row for each architecture and each of its three models: medians over turns, with AdamW and `BATCH` windows a step."""
    rows = []
    for architecture in ARCHITECTURES:
        dense = fresh(architecture, 0, *WIDE).eval()
        smaller = halved(dense, texts.tuned[:BATCH], METHODS["magnitude-l2"])
        models = {"dense": dense, "masked": copy.deepcopy(dense), "pruned": smaller}
        masked = Masked(models["masked"])
        optimisers = {name: torch.optim.AdamW(model.train().parameters(), lr=1e-3) for name, model in models.items()}
        batch = texts.tuned[:BATCH]

        def work(name: str, models=models, optimisers=optimisers, masked=masked, batch=batch) -> None:
            step(models[name], batch, optimisers[name])
            if name == "masked":
                masked.apply()

        seconds: dict[str, list[float]] = {name: [] for name in models}
        for turn in range(TIMES + 1):
            for name in models:
                started = time.perf_counter()
                work(name)
                if turn:  # the first warms up, and makes the optimiser's moments
                    seconds[name].append(time.perf_counter() - started)
        for name, model in models.items():
            parameters = sum(each.numel() for each in model.parameters())
            held = bytes_held(lambda name=name: work(name))  # type: ignore[misc]
            rows.append(
                {
                    "model": f"{architecture} {name}",
                    "parameters": parameters,
                    "step_seconds": statistics.median(seconds[name]),
                    "bytes": 3 * 4 * parameters + held,  # weights, and the two moments of AdamW, beside what a step holds
                }
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True, metavar="FOLDER", help="where the two texts are")
    parser.add_argument("--cells", default="", metavar="REGEX", help="run only cells whose name it finds, such as 't5 tasp'")
    parser.add_argument(
        "--steps", type=int, default=600, metavar="N", help="steps of training; half as many fine-tune (default %(default)s)"
    )
    parser.add_argument("--out", type=Path, default=RESULTS / "finetune.json", metavar="FILE", help="the result file")
    parser.add_argument("--speed", action="store_true", help="measure time and memory instead, into *_speed.json")
    arguments = parser.parse_args()
    texts = Texts(arguments.text)
    if not arguments.speed:
        show(resumed(cells(arguments.steps), arguments.cells, arguments.out, runner(texts)))
        return
    rows = speed(texts)
    path = arguments.out.with_name(f"{arguments.out.stem}_speed.json")
    save(path, {"threads": torch.get_num_threads(), "versions": dict(versions()), "rows": rows})
    shown = [
        [row["model"], f"{row['parameters']:,}", f"{1000 * row['step_seconds']:.0f}", f"{row['bytes'] / 1e6:.0f}"]
        for row in rows
    ]
    print(table(["model", "parameters", "ms a step", "MB"], shown))


if __name__ == "__main__":
    main()
