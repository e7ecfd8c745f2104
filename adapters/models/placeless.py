"""Tensors of a checkpoint that its model has no place for, and weights of the model that the checkpoint lacks.

What a model does not load, it does not save. So such tensors are refused by name, with the way out, unless nothing is lost:
they are buffers that every version computes anew, or the model's own class says that it does without them, which is said.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from torch import nn
from transformers import PreTrainedModel

__all__ = ["drop_pooler", "refuse_incomplete", "refuse_placeless", "unseen"]

LOG = logging.getLogger(__name__)

# Buffers that are computed, or constant: rotary tables, positions, masks, what old versions counted.
HARMLESS = re.compile(
    r"(^|\.)(inv_freq|original_inv_freq|cos_cached|sin_cached|position_ids|token_type_ids|num_batches_tracked|masked_bias"
    r"|embed_positions\._float_tensor|embed_positions\.weights|EncDecAttention\.relative_attention_bias\.weight)$"
)
MASK = re.compile(r"(^|\.)(attn|attention|crossattention|self_attn)\.bias$")  # causal masks; a bias itself has one axis
SCALES = re.compile(
    r"(_scale|_scale_inv|_scales|_zero_point|\.scales|\.qweight|\.qzeros|\.g_idx|\.SCB|\.absmax|\.quant_map|\.weight_packed"
    r"|\.quant_state\..*|_blocks|\.weight_format)$"
)
ADAPTERS = re.compile(r"\.lora_[AB]\b|\.lora_embedding|\.lora_magnitude")
POOLER = re.compile(r"(^|\.)pooler\.")


def refuse_placeless(
    model: PreTrainedModel, config: Any, unknown: Iterable[str], shapes: Mapping[str, tuple[int, ...]]
) -> None:
    """Raise ValueError for tensors, known by name, that the model has no place for and that would be lost.

    Those that its class lists as needless are passed on as a remark. shapes: of tensors by name, as far as they are known.
    """
    needless = needless_to(model)
    passed: list[str] = []
    lost: list[str] = []
    for name in sorted(unknown):
        if not harmless(name, shapes.get(name)):
            (passed if needless is not None and needless.search(name) else lost).append(name)
    if passed:
        LOG.warning(f"{type(model).__name__} does without {listed(passed)}, so that they will not be in what is saved of it")
    if not lost:
        return
    if left_out := [name for name in lost if beyond(model, name)]:
        raise ValueError(
            f"weights of blocks that the configuration leaves out, {listed(left_out)}: they would be lost; state all blocks "
            "there, or remove these tensors"
        )
    if scales := [name for name in lost if SCALES.search(name)]:
        raise ValueError(
            f"{listed(scales)} are scales or codes of quantised weights, expected floating-point weights: dequantise the model "
            "and save that"
        )
    if adapters := [name for name in lost if ADAPTERS.search(name)]:
        raise ValueError(f"{listed(adapters)} are of adapters: merge them with peft's model.merge_and_unload(), and save that")
    if biases := [name for name in lost if name.endswith(".bias") and denied(model, name)]:
        raise ValueError(
            f"{listed(biases)} are in the weights, and the configuration states no such biases (attention_bias, mlp_bias or "
            "the like): they would be lost; state them there"
        )
    raise ValueError(
        f"{listed(lost)} are weights of no module of {type(model).__name__}: they would be lost{other_class(model, config)}"
    )


def refuse_incomplete(model: PreTrainedModel, config: Any, missing: Iterable[str]) -> None:
    """Raise ValueError for weights that the checkpoint lacks, unless nothing needs them."""
    left = sorted(drop_pooler(model, missing))
    if not left:
        return
    raise ValueError(f"weights are missing: {listed(left)}{other_class(model, config)}")


def other_class(model: PreTrainedModel, config: Any) -> str:
    """What to do with a model that was saved as one of another class, as the end of a sentence."""
    saved = " or ".join(getattr(config, "architectures", None) or [])
    name = type(model).__name__
    if saved in ("", name):
        return ""
    return (
        f" (it was saved as {saved}); load it with {saved}.from_pretrained and prune it in memory, or save the part that is a "
        f"{name} by itself"
    )


def drop_pooler(model: PreTrainedModel, missing: Iterable[str]) -> set[str]:
    """Let an encoder go without a pooler that its checkpoint lacks: no embedding of tokens needs it, and it would be random.
    Return what else is missing."""
    missing = set(missing)
    pooled = {name for name in missing if POOLER.search(name)}
    module = getattr(model, "pooler", None)
    if pooled and isinstance(module, nn.Module) and pooled == {f"pooler.{name}" for name in module.state_dict()}:
        model.pooler = None  # type: ignore[assignment]
        LOG.warning("its weights hold no pooler, so that it goes without")
        return missing - pooled
    return missing


def harmless(name: str, shape: tuple[int, ...] | None) -> bool:
    """Whether a tensor holds nothing that was learnt."""
    return bool(HARMLESS.search(name)) or (shape is not None and len(shape) > 2 and bool(MASK.search(name)))


def needless_to(model: PreTrainedModel) -> re.Pattern[str] | None:
    """What the model's class says that checkpoints may hold and it does not need; None where it says nothing."""
    patterns = getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()
    return re.compile("|".join(f"(?:{pattern})" for pattern in sorted(patterns))) if patterns else None


def beyond(model: PreTrainedModel, name: str) -> bool:
    """Whether a tensor belongs to a module beyond the last of one of the model's lists."""
    for number in re.finditer(r"\.(\d+)\.", name):
        for path in under(model, name[: number.start()]):
            with suppress(AttributeError):
                found = model.get_submodule(path)
                if isinstance(found, nn.ModuleList) and int(number[1]) >= len(found):
                    return True
    return False


def denied(model: PreTrainedModel, name: str) -> bool:
    """Whether a bias is of a module that has none here."""
    for path in under(model, name.rpartition(".")[0]):
        with suppress(AttributeError):
            if getattr(model.get_submodule(path), "bias", model) is None:
                return True
    return False


def under(model: PreTrainedModel, path: str) -> tuple[str, str]:
    """A path as it is, and under the prefix of the model's base."""
    return path, f"{model.base_model_prefix}.{path}"


def unseen(model: PreTrainedModel, names: Iterable[str]) -> set[str]:
    """The tensors of a checkpoint that the library says nothing of, because the model's class lists them as needless."""
    needless = needless_to(model)
    found = set() if needless is None else {name for name in names if needless.search(name)}
    places, prefix = model.state_dict().keys(), f"{model.base_model_prefix}."
    return {name for name in found if not {name, f"{prefix}{name}", name.removeprefix(prefix)} & places}


def listed(names: list[str]) -> str:
    """The first names of a list, and how many more there are."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{', '.join(names[:3])}{more}"
