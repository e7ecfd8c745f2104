"""Runs that several processes share: measured here with one and two, and planned for large models on many.

    python benchmarks/ranks.py [--text FOLDER] [--out FILE]

measured  gemma-3-270m's first blocks, pruned by one process and by two that torchrun starts, each with one thread, without
          perplexity; the bytes of both models are compared. Beside the measured ratio is the one that `gramian estimate --ranks
          2` foresees.
planned   what `gramian estimate` says of models by their shapes alone, for H100s: the rates of products measured on one
          (results/gpu-*.json), and 25 GB/s that a process receives.

`--text` names the folder of `common/protocol.py`, whose validation text calibrates; by default the text that ships does.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from common.results import RESULTS, save
from transformers import AutoConfig

from gramian.adapters.config.prune_config import PruneConfig
from gramian.adapters.estimates.figures import Rates
from gramian.adapters.estimates.runs import run_estimate
from gramian.adapters.estimates.shared import shared_estimate
from gramian.adapters.run.skeletons import skeleton
from gramian.tables import table
from gramian.versions import versions

OPTIONS = {  # of measured runs; the first word is the method
    "sparsegpt": [], "fistapruner": ["--set", "warm_start=wanda", "--set", "max_lambdas=4"], "l0": [],
    "l0 2:4": ["--sparsity", "2:4"],
}  # fmt: skip
PLANNED: dict[str, float | str] = {"sparsegpt": 0.5, "fistapruner": 0.5, "l0": 0.5, "l0 2:4": "2:4"}
BLOCKS, WINDOWS, RANKS = 2, (128, 2048), (1, 8, 64)
H100, BANDWIDTH = Rates(5.0e13, 5.0e13), 25e9
LLAMA = {"model_type": "llama", "vocab_size": 128256, "num_key_value_heads": 8, "max_position_embeddings": 8192}
SHAPES: dict[str, dict[str, Any]] = {
    "8B": {**LLAMA, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32},
    "70B": {**LLAMA, "hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64},
    "200B, 128 experts": {
        "model_type": "qwen3_moe", "vocab_size": 151936, "hidden_size": 4096, "moe_intermediate_size": 1536,
        "intermediate_size": 12288, "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 4,
        "head_dim": 128, "num_experts": 128, "num_experts_per_tok": 8, "max_position_embeddings": 8192,
    },
}  # fmt: skip


def measured(name: str, options: list[str], text: list[str], work: Path) -> dict[str, Any]:
    """Seconds of one process and of two, whether their bytes are equal, and the ratio that is foreseen."""
    shape, method = f"{work / name}.json", name.split()[0]
    foreseen = ["-m", "gramian", "estimate", "demo", "--method", method, *options, "--blocks", f":{BLOCKS}", "--samples", "32"]
    subprocess.run([sys.executable, *foreseen, "--length", "512", "--ranks", "2", "--json", shape], check=True)
    arguments = ["-m", "gramian", "prune", "demo", "--method", method, *options, "--blocks", f":{BLOCKS}", "--samples", "32"]
    arguments += ["--length", "512", "--no-perplexity", *text]
    seconds, digests = [], []
    for count in (1, 2):
        out = work / f"{name}-{count}"
        launcher = ["-m", "torch.distributed.run", "--nproc-per-node", f"{count}"] if count > 1 else []
        threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        subprocess.run([sys.executable, *launcher, *arguments, "--out", out], check=True, env={**os.environ, **threads})
        document = json.loads((out / "gramian.json").read_text())
        seconds.append(document["seconds"])
        digests.append(hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest())
    return {
        "method": name, "blocks": BLOCKS, "one s": seconds[0], "two s": seconds[1], "ratio": seconds[0] / seconds[1],
        "foreseen": json.loads(Path(shape).read_text())["shared"]["speedup"], "equal bytes": digests[0] == digests[1],
    }  # fmt: skip


def planned(shape: str, name: str, sparsity: float | str) -> list[dict[str, Any]]:
    """What the planner says of one model, for every number of processes."""
    settings = dict(SHAPES[shape])
    config = AutoConfig.for_model(settings.pop("model_type"), **settings, dtype="bfloat16")
    model, settled = skeleton(config, config.dtype), PruneConfig(method=name.split()[0], sparsity=sparsity)
    base = run_estimate(model, WINDOWS, settled, rates=H100)
    found = [shared_estimate(model, WINDOWS, settled, ranks, BANDWIDTH, base) for ranks in RANKS]
    return [{"shape": shape, "method": name, **each.as_dict()} for each in found]


def shown(value: Any) -> str:
    """A figure in a table."""
    return f"{value:.4g}" if isinstance(value, float) else f"{value}"


def main() -> None:
    """Run what is asked for, write the file, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path)
    parser.add_argument("--out", type=Path, default=RESULTS / "ranks.json")
    parser.add_argument("--only", choices=("measured", "planned"))
    args = parser.parse_args()
    results: dict[str, Any] = json.loads(args.out.read_text()) if args.out.exists() else {}
    if args.only != "measured":
        results["planned"] = [
            row for shape in SHAPES for name, amount in PLANNED.items() for row in planned(shape, name, amount)
        ]
    if args.only != "planned":
        text = ["--calibration", str(args.text / "wikitext2.valid.txt")] if args.text else []
        with tempfile.TemporaryDirectory() as work:
            results["measured"] = [measured(name, options, text, Path(work)) for name, options in OPTIONS.items()]
    results["versions"] = dict(versions())
    save(args.out, results)
    for name in ("measured", "planned"):
        if rows := results.get(name):
            columns = [key for key, value in rows[0].items() if not isinstance(value, dict)]
            print(
                table(
                    columns,
                    [[f"{row[key]:.4g}" if isinstance(row[key], float) else f"{row[key]}" for key in columns] for row in rows],
                )
            )


if __name__ == "__main__":
    main()
