"""Whether the weights of modules are plain tensors in memory, which can be read, pruned and written back.

A parameter can be computed from others at every call, kept as codes and scales, or be elsewhere: what is written to such a
weight changes nothing, or not what it seems to. These are refused before any work, with the way out.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.utils import parametrize

__all__ = ["check_in_memory", "check_plain", "check_plain_module"]

FLOATING = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def check_plain(model: nn.Module) -> None:
    """Raise ValueError, with the name of the first module that is concerned, for a model whose weights are not plain."""
    check_in_memory(model)
    for name, module in model.named_modules():
        check_plain_module(name, module)


def check_in_memory(model: nn.Module) -> None:
    """Raise ValueError for a model of which some weights are on no device, or on the disk for the time between their uses."""
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_meta:
            raise ValueError(
                f"{name} has no memory: it was built on the device 'meta', or device_map put it on the disk; load the model "
                "whole (gramian.load), or give its path (out=, --memory stream), of which one block at a time is read"
            )
    for name, module in model.named_modules():
        if any(getattr(hook, "offload", False) for hook in hooks_of(module)):
            raise ValueError(
                f"the weights of {name} are brought in by a hook of accelerate when they are used (device_map): load the model "
                "whole, or give device=, to which one block at a time is brought"
            )


def check_plain_module(name: str, module: nn.Module) -> None:
    """Raise ValueError for a module whose weight is computed from other tensors, quantised, or of a class of its own."""
    if parametrize.is_parametrized(module):
        tensors = list(module.get_submodule("parametrizations")._modules)
        raise ValueError(
            f"{name} computes {', '.join(tensors)} from other parameters (torch.nn.utils.parametrize), so that weights written "
            f"to it would be lost: torch.nn.utils.parametrize.remove_parametrizations(module, {tensors[0]!r}) makes it plain"
        )
    for kind, leaf in computed(module):
        way = f"torch.nn.utils.{kind}" if kind else "make it a parameter again"
        raise ValueError(
            f"{name} computes {leaf} from other parameters at every call, so that weights written to it would be lost: {way} "
            "makes it plain"
        )
    if not isinstance(module, nn.Linear) and type(module).__name__ != "Conv1D":
        return
    weight = module._parameters.get("weight")
    if weight is not None and (weight.dtype not in FLOATING or type(weight) is not nn.Parameter):
        kind = str(weight.dtype).removeprefix("torch.") if type(weight) is nn.Parameter else type(weight).__name__
        raise ValueError(
            f"the weight of {name} ({type(module).__name__}) is quantised or kept in another form ({kind}), expected plain "
            "floating-point numbers: load the model without quantisation, prune it, and quantise the result"
        )


def computed(module: nn.Module) -> Iterator[tuple[str, str]]:
    """The tensors of a module that hooks compute, with the function that ends it, if it is one of torch's."""
    for leaf in ("weight", "bias"):
        if leaf in module._parameters or not isinstance(vars(module).get(leaf), torch.Tensor):
            continue
        if f"{leaf}_mask" in module._buffers:
            yield f"prune.remove(module, {leaf!r})", leaf
        elif f"{leaf}_g" in module._parameters:
            yield f"remove_weight_norm(module, {leaf!r})", leaf
        elif f"{leaf}_u" in module._buffers:
            yield f"remove_spectral_norm(module, {leaf!r})", leaf
        else:
            yield "", leaf


def hooks_of(module: nn.Module) -> list[object]:
    """The hooks that accelerate has put on a module."""
    hook = getattr(module, "_hf_hook", None)
    return [] if hook is None else [hook, *getattr(hook, "hooks", ())]
