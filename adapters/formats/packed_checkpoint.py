"""A model with quantised weights as a checkpoint of compressed-tensors, which stock `from_pretrained` loads with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from gramian.adapters.drafts import new_directory
from gramian.adapters.files import check_output, write_bytes
from gramian.adapters.formats.onnx_agreement import TOLERANCE
from gramian.adapters.formats.packed_agreement import check_packed
from gramian.adapters.formats.packed_codes import Codes, codes_of, packed_words
from gramian.adapters.models.factored_weights import in_one_piece
from gramian.adapters.models.libraries import quiet_libraries
from gramian.adapters.models.loading import storage_dtype
from gramian.adapters.models.modes import eval_mode
from gramian.adapters.models.saving import save
from gramian.adapters.models.widths import unstated_widths
from gramian.adapters.models.wrapped_operators import merged
from gramian.extras import QUANTISED, need

__all__ = ["export_packed"]

BITS = (4, 8)


def export_packed(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, out: Path, bits: int, group: int, overwrite: bool = False
) -> dict[str, Any]:
    """Write every Linear whose weights are codes times scales as packed codes, all else as it is; return what was done.

    The files are those of `save`, but for `weight` in place of which stand `weight_packed`, `weight_scale` and `weight_shape`,
    and for `quantization_config`. They appear once transformers has loaded them and computes the same. bits: 4 or 8. group:
    inputs that share a scale. ValueError where no Linear is on such a grid, for widths that stock classes do not build, and
    where what is loaded computes something else; ImportError without compressed-tensors.
    """
    if bits not in BITS:
        raise ValueError(f"bits must be 4 or 8 but is {bits}: kernels for packed codes have no other widths")
    if widths := unstated_widths(model):
        raise ValueError(f"{next(iter(widths))} has other widths than the stock class builds: save it with pad=True first")
    need("quantised", QUANTISED, "a checkpoint of compressed-tensors")
    check_output(out, overwrite)
    storage, found = storage_dtype(model), dict[str, Codes]()
    dense = []
    for name, module in model.named_modules():
        if not isinstance(module, nn.Linear) or module is model.get_output_embeddings():
            continue
        codes = codes_of(module.weight.detach().to(storage), bits, group)
        if codes is None:
            dense.append(name)
        else:
            found[name] = codes
    if not found:
        raise ValueError(
            f"no Linear of the model has weights on a grid of {bits} bits in groups of {group}: prune it first with "
            f"method='sparsegpt-quantised', options bits={bits} and group={group}"
        )
    head = next((name for name, module in model.named_modules() if module is model.get_output_embeddings()), None)
    stored = write(model, tokenizer, out, found, [*dense, *([head] if head else [])], (bits, group), overwrite)
    document = {"format": "compressed-tensors", "bits": bits, "group": group, "packed": len(found), "dense": dense}
    return {**document, "undivided": [name for name in dense if inputs_of(model, name) % group], **stored}


def inputs_of(model: PreTrainedModel, name: str) -> int:
    """How many inputs a Linear has."""
    module: Any = model.get_submodule(name)
    return int(module.weight.shape[1])


def write(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    out: Path,
    found: dict[str, Codes],
    ignored: list[str],
    form: tuple[int, int],
    overwrite: bool,
) -> dict[str, Any]:
    """Write the directory, complete or not at all; return the bytes of the weights, packed and not, and how it agrees."""
    bits, group = form
    with new_directory(out.expanduser().resolve(), overwrite) as draft, quiet_libraries():
        with in_one_piece(model), merged(model, storage_dtype(model)):
            plain = save(model, tokenizer, draft / "dense")
        tensors = {}
        before = 0
        for file in sorted(plain.glob("*.safetensors")):
            before += file.stat().st_size
            tensors.update(load_file(file))
            file.unlink()
        (plain / "model.safetensors.index.json").unlink(missing_ok=True)
        for name, (codes, scales) in found.items():
            del tensors[f"{name}.weight"]
            tensors[f"{name}.weight_packed"] = packed_words(codes, bits)
            tensors[f"{name}.weight_scale"] = scales.contiguous()
            tensors[f"{name}.weight_shape"] = torch.tensor(codes.shape)
        save_file(tensors, draft / "model.safetensors", metadata={"format": "pt"})
        for file in plain.iterdir():
            file.rename(draft / file.name)
        plain.rmdir()
        config = json.loads((draft / "config.json").read_text())
        config["quantization_config"] = quantization_config(bits, group, ignored)
        write_bytes(draft / "config.json", json.dumps(config, indent=2).encode())
        with eval_mode(model):
            agreement = check_packed(draft, model)
        check = {**agreement._asdict(), "tolerance": TOLERANCE}
        return {"bytes": (draft / "model.safetensors").stat().st_size, "dense_bytes": before, "check": check}


def quantization_config(bits: int, group: int, ignored: list[str]) -> dict[str, Any]:
    """What compressed-tensors reads: symmetric codes of whole numbers, a scale for each group, activations as they are."""
    weights = {"num_bits": bits, "type": "int", "symmetric": True, "strategy": "group", "group_size": group, "dynamic": False}
    scheme = {"targets": ["Linear"], "weights": weights, "input_activations": None, "output_activations": None}
    return {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "config_groups": {"group_0": scheme},
        "ignore": ignored,
        "kv_cache_scheme": None,
    }
