"""What smaller models can do where there is no gramian: loaded, generating, trained, saved, evaluated by others.

    python benchmarks/smaller_models.py [--types llama opt ...] [--out FILE]

Tiny random models of every type are pruned by the command, to equal and rounded widths and by `loss`, at two ratios. A process
of its own, in which `gramian` cannot be imported, then tries what `common/without_gramian.py` says. Rows that are not run keep
what the result file has of them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from common.results import RESULTS, save
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

import gramian
from gramian.versions import versions

SHAPE: dict[str, Any] = {
    "vocab_size": 258, "hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 3, "num_attention_heads": 8,
    "num_key_value_heads": 4, "max_position_embeddings": 256, "bos_token_id": 256, "eos_token_id": 257, "pad_token_id": 257,
}  # fmt: skip
# Heads of opt and gpt2 remain where widths are equal, so that half of all is to be found in their feed-forward modules.
TYPES: dict[str, dict[str, Any]] = {
    "llama": SHAPE,
    "qwen3": SHAPE | {"head_dim": 16},
    "gemma3_text": SHAPE | {"head_dim": 16, "sliding_window": 8},
    "opt": SHAPE | {"ffn_dim": 512, "word_embed_proj_dim": 64},
    "gpt2": SHAPE | {"n_embd": 64, "n_layer": 3, "n_head": 8, "n_inner": 512, "n_positions": 256},
    "phi3": SHAPE,
    "mistral": SHAPE | {"head_dim": 16},
}
WAYS = {"equal + round-to": ("--allocation", "equal", "--round-to", "16"), "loss": ("--allocation", "loss")}
RATIOS = (0.2, 0.5)
CHILD = Path(__file__).parent / "common" / "without_gramian.py"
TEXT = "The quick brown fox jumps over the lazy dog. " * 200
TOKENS = torch.randint(0, 256, (4, 24), generator=torch.Generator().manual_seed(3))


def dense_model(model_type: str) -> Any:
    """A random model whose logits depend visibly on every weight."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **TYPES[model_type]), dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn_like(parameter)
            parameter.copy_(parameter.shape[-1] ** -0.5 * noise if parameter.ndim > 1 else parameter + 0.1 * noise)
    return model.eval()


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte."""
    alphabet = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "<s>", "</s>"]
    tokenizer = Tokenizer(models.BPE(vocab={symbol: place for place, symbol in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>")


def row(dense: Path, way: tuple[str, ...], ratio: float, folder: Path) -> dict[str, Any]:
    """Prune by the command, and try the result in a process without gramian."""
    command = [sys.executable, "-m", "gramian", "prune", str(dense), "--out", str(folder / "out"), "--method", "numerical"]
    reads = ["--calibration", str(dense.parent / "text.txt"), "--samples", "4", "--length", "32", "--no-perplexity", "--quiet"]
    done = subprocess.run([*command, "--ratio", str(ratio), *way, *reads], capture_output=True, text=True)
    if done.returncode:
        return {"reason": done.stderr.strip().splitlines()[-1]}
    model, _ = gramian.load(folder / "out")
    with torch.no_grad():
        save_file({"tokens": TOKENS, "logits": model(input_ids=TOKENS).logits}, folder / "answers.safetensors")
    (folder / "work").mkdir()
    child = [sys.executable, str(CHILD), str(folder / "out"), str(folder / "answers.safetensors")]
    told = subprocess.run([*child, str(folder / "work")], capture_output=True, text=True)
    found: dict[str, Any] = json.loads(told.stdout.strip().splitlines()[-1])
    found.setdefault("loads", "gramian only")
    return {"removed": json.loads((folder / "out" / "gramian.json").read_text(encoding="utf-8"))["ratio"], **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--types", nargs="+", choices=TYPES, metavar="TYPE", default=list(TYPES), help="default: all")
    parser.add_argument("--out", type=Path, default=RESULTS / "smaller_models.json", metavar="FILE", help="the result file")
    arguments = parser.parse_args()
    rows = json.loads(arguments.out.read_text(encoding="utf-8"))["rows"] if arguments.out.is_file() else {}
    for model_type in arguments.types:
        with tempfile.TemporaryDirectory() as folder:
            dense = gramian.save(dense_model(model_type), byte_tokenizer(), Path(folder, "dense"))
            Path(folder, "text.txt").write_text(TEXT, encoding="utf-8")
            for name, way in WAYS.items():
                for ratio in RATIOS:
                    place = Path(folder, f"{name} {ratio}")
                    place.mkdir()
                    rows[f"{model_type}, {name}, {ratio:.0%}"] = found = row(dense, way, ratio, place)
                    print(model_type, name, ratio, found, flush=True)
        save(arguments.out, {"versions": versions(), "rows": rows})


if __name__ == "__main__":
    main()
