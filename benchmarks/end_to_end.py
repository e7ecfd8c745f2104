"""Perplexity of pruned models on a fixed protocol, beside what the published codes reach on it.

    python benchmarks/end_to_end.py --text FOLDER [--cells REGEX] [--out FILE.json]

FOLDER holds wikitext2.valid.txt (calibration), wikitext2.test.raw.txt and ptb.test.txt. The model is gemma-3-270m from
the `demo` extra, rounded once to bfloat16 and run in float32. Every text is tokenised whole and cut into consecutive
windows, each after a begin token. Calibration: the first 32 windows of 512 tokens; held-out error: the next 8. Test: the
first 16 windows of 1024 tokens of WikiText-2 and the first 12 of PTB. All seven operators of all blocks are pruned.

Three corrections at three sparsities (FISTAPruner, Appendix E) are compared with a short search from a Wanda start, on
WikiText-2 alone: nine models are many minutes.

A cell that is in the JSON already, with the same keywords, is not run again. Differences between two of our models are
paired: the mean over tokens of the difference of negative log-likelihood, with its standard error.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

import torch

from gramian.adapters.calibration import Tokens, text_windows
from gramian.adapters.checkpoint import load_model
from gramian.adapters.evaluate import Perplexity, paired_difference, perplexity
from gramian.adapters.pipeline import prune
from gramian.adapters.report import table, versions

TEXTS = {"wikitext2": ("wikitext2.test.raw.txt", 16), "ptb": ("ptb.test.txt", 12)}

# The published algorithms, their released code run on this protocol (block by block on pruned inputs): WikiText-2, PTB.
PUBLISHED = {
    ("dense", "-"): (18.81, 68.46),
    ("Wanda", "50%"): (41.98, 204.8),
    ("SparseGPT", "50%"): (33.17, 138.2),
    ("ALPS", "50%"): (29.04, 112.7),
    ("Wanda", "2:4"): (108.5, 572.8),
    ("SparseGPT", "2:4"): (51.44, 239.2),
    ("ALPS", "2:4"): (41.14, 183.0),
}


def cells() -> dict[str, dict[str, Any]]:
    """Name -> keywords of `prune`; the dense model is the empty one."""
    fista = {"method": "fistapruner"}
    found: dict[str, dict[str, Any]] = {"dense": {}}
    for name, target in (("50%", {"sparsity": 0.5}), ("2:4", {"pattern": "2:4"})):
        found[f"sparsegpt {name}"] = {"method": "sparsegpt", **target}
        found[f"wanda {name}"] = {"method": "wanda", **target}
        for warm in ("sparsegpt", "wanda"):
            found[f"fistapruner from {warm} {name}"] = {**fista, **target, "options": {"warm_start": warm}}
        found[f"fistapruner, refit {name}"] = {**fista, **target, "refit": True}
        found[f"l0 {name}"] = {"method": "l0", **target}
    corrections = {
        "no correction": {"inputs": "dense", "correction": "none"},
        "correction inside layers": {"inputs": "dense", "correction": "layer"},
        "correction to the dense model": {"inputs": "pruned", "correction": "model"},
    }
    for sparsity, visits in ((0.5, 4), (0.2, 2), (0.1, 2)):
        short = {"warm_start": "wanda", "visits": visits}  # enough to compare, not the best that can be had
        for name, switches in corrections.items():
            found[f"{100 * sparsity:g}% {name}"] = {**fista, "sparsity": sparsity, "options": short, **switches}
    return found


def evaluate(model: Any, windows: dict[str, torch.Tensor], losses: Path, name: str) -> dict[str, float]:
    """Perplexity on every text; per-token losses go to `losses` for paired comparisons."""
    values = {}
    for text, tokens in windows.items():
        result = perplexity(model, tokens, batch=2)
        values[text] = result.value
        torch.save(result.losses, losses / f"{name} {text}.pt")
    return values


def show(results: dict[str, Any], losses: Path) -> None:
    """The table: ours, then the published ones, then paired differences of ours."""
    rows = [
        [f"{method} (published code)", pattern, "-", "-", f"{wiki:.2f}", f"{ptb:.1f}", "-"]
        for (method, pattern), (wiki, ptb) in PUBLISHED.items()
    ]
    for name, cell in results.items():
        report = cell.get("report") or {}
        error, heldout = report.get("mean_error"), report.get("mean_heldout_error")
        rows.append(
            [
                name,
                report.get("settings", {}).get("pattern", "-"),
                "-" if error is None else f"{error:.5f}",
                "-" if heldout is None else f"{heldout:.5f}",
                f"{cell['perplexity']['wikitext2']:.2f}",
                f"{cell['perplexity']['ptb']:.1f}" if "ptb" in cell["perplexity"] else "-",
                f"{report['seconds']:.0f}" if report else "-",
            ]
        )
    print(table(["model", "pattern", "mean error", "held-out", "WikiText-2", "PTB", "prune s"], rows))
    print("\nPaired differences of negative log-likelihood per token (nats, mean +- standard error; negative: first is better)")
    for pattern in ("50%", "2:4"):
        for first in (f"l0 {pattern}", f"fistapruner from sparsegpt {pattern}", f"fistapruner from wanda {pattern}"):
            for second in (f"sparsegpt {pattern}", f"wanda {pattern}"):
                for text in TEXTS:
                    paths = [losses / f"{name} {text}.pt" for name in (first, second)]
                    if not all(path.exists() for path in paths):
                        print(f"  {first} - {second}, {text}: per-token losses are missing, delete the cells to run them again")
                    else:
                        a, b = (Perplexity(0.0, torch.load(path, weights_only=True)) for path in paths)
                        mean, error = paired_difference(a, b)
                        print(f"  {first} - {second}, {text}: {mean:+.4f} +- {error:.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--cells", default="", metavar="REGEX", help="only cells whose name matches")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "end_to_end.json")
    arguments = parser.parse_args()
    losses = arguments.out.with_suffix("")  # per-token losses, a file for each cell and text
    losses.mkdir(parents=True, exist_ok=True)
    results = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    waiting = {
        name: keywords
        for name, keywords in cells().items()
        if re.search(arguments.cells, name) and results.get(name, {}).get("keywords") != keywords
    }
    if waiting:
        model, tokenizer = load_model("demo")
        original = {key: value.clone() for key, value in model.state_dict().items()}
        calibration = text_windows((arguments.text / "wikitext2.valid.txt").read_text(), tokenizer, 512)
        tokens = Tokens(calibration[:32], source="wikitext2.valid.txt", seed=None)
        windows = {
            text: text_windows((arguments.text / file).read_text(), tokenizer, 1024)[:count]
            for text, (file, count) in TEXTS.items()
        }
    for name, keywords in waiting.items():
        print(f"== {name}", flush=True)
        model.load_state_dict(original)
        cell: dict[str, Any] = {"keywords": keywords}
        if keywords:
            report = prune(model, tokens, heldout=calibration[32:40] if "correction" not in name else None, **keywords)
            cell["report"] = report.to_dict()
            print(report, flush=True)
        texts = {"wikitext2": windows["wikitext2"]} if "correction" in name else windows
        cell["perplexity"] = evaluate(model, texts, losses, name)
        cell["versions"] = dict(versions())
        results[name] = cell
        draft = arguments.out.with_suffix(".partial")
        draft.write_text(json.dumps(results, indent=1))
        draft.replace(arguments.out)
    show(results, losses)


if __name__ == "__main__":
    main()
