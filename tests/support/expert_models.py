"""Tiny models with packed experts, and what reaches each expert by a loop of our own over a model that runs in stock form."""

from __future__ import annotations

from typing import Any

import torch
from tiny_models import BEGIN, END, VOCABULARY
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from gramian.adapters.models.experts import stages_in

COMMON: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 128, "num_experts_per_tok": 2, "vocab_size": VOCABULARY, "bos_token_id": BEGIN,
    "eos_token_id": END, "pad_token_id": END,
}  # fmt: skip
ROUTED: dict[str, dict[str, Any]] = {
    "mixtral": COMMON | {"intermediate_size": 24, "num_local_experts": 4},
    "qwen3_moe": COMMON | {"moe_intermediate_size": 24, "intermediate_size": 40, "num_experts": 4, "head_dim": 16},
    "olmoe": COMMON | {"intermediate_size": 24, "num_experts": 4},
    "granitemoe": COMMON | {"intermediate_size": 24, "num_local_experts": 4},
    "gpt_oss": COMMON | {"intermediate_size": 24, "num_local_experts": 4, "head_dim": 8, "sliding_window": 6},
    "deepseek_v3": COMMON
    | {
        "num_key_value_heads": 4, "moe_intermediate_size": 24, "intermediate_size": 40, "n_routed_experts": 4, "n_group": 1,
        "topk_group": 1, "n_shared_experts": 1, "first_k_dense_replace": 1, "kv_lora_rank": 16, "q_lora_rank": 16,
        "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8,
    },
}  # fmt: skip


def expert_model(
    model_type: str, dtype: torch.dtype = torch.float32, shape: dict[str, Any] | None = None, **changed: Any
) -> PreTrainedModel:
    """A language model with experts in eval mode, whose logits depend visibly on every weight."""
    config = AutoConfig.for_model(model_type, **(shape or ROUTED[model_type]) | changed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
        with torch.no_grad():
            for parameter in model.parameters():
                noise = torch.randn_like(parameter)
                if parameter.ndim == 1:
                    parameter.add_(0.1 * noise)
                else:
                    parameter.copy_(32**-0.5 * noise)
    model.config.dtype = dtype
    return model.eval().requires_grad_(False)


def path_of_experts(model: nn.Module, layer: int = 1) -> str:
    """The full name of the experts module of a layer."""
    return next(
        name for name, _ in model.named_modules() if name.startswith(f"model.layers.{layer}.") and name.endswith("experts")
    )


def experts_of(block: nn.Module) -> tuple[tuple[str, ...], ...]:
    """The stages of a block that are packed experts, in order, as dotted paths inside it."""
    return tuple(stage for path, module in block.named_modules() for stage in stages_in(path, module))


def matrix(model: nn.Module, operator: str) -> torch.Tensor:
    """W (q, p) of an expert, in float64."""
    path, leaf, number = operator.rsplit(".", 2)
    packed = model.get_submodule(path).get_parameter(leaf).detach()[int(number)].double()
    return packed.T if model.config.model_type == "gpt_oss" else packed


@torch.no_grad()
def inputs_of_experts(model: Any, windows: torch.Tensor, path: str) -> dict[str, torch.Tensor]:
    """What reaches the matrices of every expert of a module, by operator, in float64: the routing is that of the whole model,
    and the experts' arithmetic is written out here."""
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def note(_: nn.Module, args: tuple[torch.Tensor, ...], kwargs: dict[str, torch.Tensor]) -> None:
        given = [*args, *kwargs.values()]
        seen.append((given[0].reshape(-1, given[0].shape[-1]).double(), given[1]))

    module = model.get_submodule(path)
    handle = module.register_forward_pre_hook(note, with_kwargs=True)
    form = model.config._experts_implementation
    model.set_experts_implementation("eager")  # grouped products take no float64
    model(input_ids=windows, use_cache=False)
    model.set_experts_implementation(form)
    handle.remove()
    ((hidden, index),) = seen
    found = {}
    for number in range(module.num_experts):
        rows = hidden[(index == number).any(dim=-1)]
        outputs = rows @ matrix(model, f"{path}.gate_up_proj.{number}").T
        if model.config.model_type == "gpt_oss":
            outputs = outputs + module.gate_up_proj_bias[number].double()
            gate, up = outputs[:, ::2].clamp(max=module.limit), outputs[:, 1::2].clamp(-module.limit, module.limit)
            inner = (up + 1) * gate * torch.sigmoid(module.alpha * gate)
        else:
            gate, up = outputs.chunk(2, dim=-1)
            inner = torch.nn.functional.silu(gate) * up
        found[f"{path}.gate_up_proj.{number}"] = rows
        found[f"{path}.down_proj.{number}"] = inner
    return found
