# Copyright the gramian authors. Licensed under the Apache License, Version 2.0: https://www.apache.org/licenses/LICENSE-2.0
"""Models of transformers whose layers have widths of their own, such as 6 heads in one and 4 in the next, or whose operators
are products with a sparse core.

`config.json` beside this file states the widths: `per_layer_config` by layer, and `uneven_units` where they are in the model;
and the products: `wrapped_operators`, by the sizes of their blocks. Each class here is the class of transformers of the same
name, whose modules are cut to these widths, and these operators replaced, once they are built and before weights are loaded.
Nothing else differs, so that forward methods, caches and training are those of transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import transformers
from torch import nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

PREFIX = "gramian_"  # before the type of the model in config.json: transformers' own classes then say that they need this file

OF_ITS_SOURCE = ("_can_set_attn_implementation", "_can_set_experts_implementation")  # what is found in the text of a class


class ConfigView:
    """The configuration of a model, which stays shared, but for a few numbers that differ in one module.

    Some forward methods read the number of heads from the configuration and not from an attribute of their module. What is set
    on a view, such as the choice of an attention function, is set on the shared configuration, and what is set there is seen.
    """

    def __init__(self, config: Any, stated: Mapping[str, int]) -> None:
        vars(self).update(shared=config, stated=dict(stated))

    @classmethod
    def of(cls, config: Any, stated: Mapping[str, int]) -> ConfigView:
        """View a configuration, or what another view is of, with the numbers of both; the new ones hold."""
        if isinstance(config, cls):
            return cls(vars(config)["shared"], {**vars(config)["stated"], **stated})
        return cls(config, stated)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "shared" not in vars(self):  # while a copy is made there is nothing to look into yet
            raise AttributeError(name)
        stated = vars(self)["stated"]
        return stated[name] if name in stated else getattr(vars(self)["shared"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(vars(self)["shared"], name, value)


class OwnConfig:
    """A configuration whose own numbers are the widths that modules are built with, before layers are cut to theirs and
    operators replaced."""

    _auto_class = "AutoConfig"
    allow_global_per_layer_attribute_access = True  # of the class, and never in a file: no other class cuts the layers
    serialize_explicit_per_layer_config = True  # every layer says all of its widths

    def __getattribute__(self, key: str) -> Any:
        """Look a setting up without the library's warning that layers may differ in it: it is what modules are built with."""
        return object.__getattribute__(self, object.__getattribute__(self, "attribute_map").get(key, key))

    @classmethod
    def get_config_dict(cls: Any, *args: Any, **kwargs: Any) -> Any:
        document, unused = super().get_config_dict(*args, **kwargs)  # type: ignore[misc]
        return {**document, "model_type": cls.model_type}, unused

    def to_diff_dict(self: Any) -> dict[str, Any]:
        document = {**super().to_diff_dict(), "model_type": PREFIX + self.model_type}  # type: ignore[misc]
        if "per_layer_config" in document:  # which nothing can read without their number, whatever a class calls it
            document["num_hidden_layers"] = self.num_hidden_layers
        return document

    def validate_architecture(self) -> None:
        """Heads need not divide the hidden size once layers are cut."""


class OwnModel(nn.Module):
    """A model that is built in the widths of its configuration's own numbers, then cut, and then wrapped."""

    def __init__(self: Any, config: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        for each in getattr(config, "uneven_units", None) or ():
            for index, block in enumerate(self.base_model.get_submodule(each["blocks"])):
                units, groups = (width_of(config, each[level], index) for level in ("units", "groups"))
                if units is not None and groups is not None:
                    cut_units(block, each, units, groups, index)
        sizes = {
            path: each["blocks"] for each in getattr(config, "wrapped_operators", None) or () for path in each["operators"]
        }
        made = {path: WrappedLinear(operator_at(self.base_model, path), *sizes[path]) for path in sizes}
        replace_modules(self, {self.base_model.get_submodule(path): module for path, module in made.items()})

    @classmethod
    def is_custom_code(cls) -> bool:
        """Tensors have the names and forms on the disk that they have of transformers' own class."""
        return False


class WrappedLinear(nn.Module):
    """x -> A (S (B x)) + bias: a Linear whose weight is V = A S B, a sparse core S between block-diagonal A and B.

    core: S, (q, p). left: the blocks of A, (ceil(q / a), a, a). right: those of B, (ceil(p / b), b, b). What a last block has
    past the end of the matrix counts nowhere.
    """

    bias: nn.Parameter | None

    def __init__(self, operator: nn.Linear | Conv1D, left: int, right: int) -> None:
        """Compute what a Linear or Conv1D does, whose weight becomes the core, between identities of so many rows a block."""
        super().__init__()
        weight, self.transposed = operator.weight, isinstance(operator, Conv1D)
        self.in_features, self.out_features = tuple(weight.shape) if self.transposed else tuple(weight.shape)[::-1]
        for size, length in ((left, self.out_features), (right, self.in_features)):
            if type(size) is not int or not 1 <= size <= length:
                raise ValueError(f"blocks of {size!r} rows are stated, expected a whole number from 1 to {length}")
        self.core = nn.Linear(self.in_features, self.out_features, bias=False, device="meta")
        self.core.weight = nn.Parameter(weight.detach().T.contiguous()) if self.transposed else weight
        self.left, self.right = identities(self.out_features, left, weight), identities(self.in_features, right, weight)
        self.register_parameter("bias", operator.bias)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Give x V^T + bias for inputs (..., p)."""
        found = blockwise(self.core(blockwise(inputs, self.right)), self.left)
        return found if self.bias is None else found + self.bias

    @torch.no_grad()
    def product(self) -> torch.Tensor:
        """Give V = A S B, (q, p), in float64."""
        inner = blockwise(self.core.weight.double(), self.right.double().mT)
        return blockwise(inner.T, self.left.double()).T

    @property
    def weight(self) -> torch.Tensor:
        """V multiplied out anew, for what looks at the weights of a Linear. Nothing that is written to it remains."""
        return self.product().to(self.core.weight.dtype)

    def extra_repr(self) -> str:
        """Show the sizes."""
        blocks = f"blocks of {self.left.shape[1]} and {self.right.shape[1]}"
        return f"in_features={self.in_features}, out_features={self.out_features}, {blocks}, bias={self.bias is not None}"


def identities(length: int, size: int, like: torch.Tensor) -> nn.Parameter:
    """The identity of so many rows as blocks, (ceil(length / size), size, size)."""
    eye = torch.eye(size, dtype=like.dtype, device=like.device)
    return nn.Parameter(eye.repeat(-(-length // size), 1, 1), requires_grad=like.requires_grad)


def blockwise(values: torch.Tensor, blocks: torch.Tensor) -> torch.Tensor:
    """Give D v for vectors v (..., length) and a block-diagonal D of as many rows, as blocks (n, k, k)."""
    count, size, _ = blocks.shape
    length = values.shape[-1]
    if missing := count * size - length:
        values = functional.pad(values, (0, missing))
    found = torch.einsum("...nk,nlk->...nl", values.unflatten(-1, (count, size)), blocks).flatten(-2)
    return found[..., :length] if missing else found


def operator_at(model: nn.Module, path: str) -> nn.Linear | Conv1D:
    """The operator of a path; ValueError where there is none."""
    try:
        found = model.get_submodule(path)
    except AttributeError:
        found = None
    if not isinstance(found, (nn.Linear, Conv1D)):
        raise ValueError(f"wrapped_operators names {path}, which is no Linear or Conv1D of the model")
    return found


def replace_modules(model: nn.Module, made: Mapping[nn.Module, nn.Module]) -> None:
    """Put modules in the places of others, under every name that these have in the model."""
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):
            if child is not None and child in made:
                setattr(parent, name, made[child])


def width_of(config: Any, stated: str | list[int | None], index: int) -> int | None:
    """The width of one layer: a setting of the layer, by its name, or from a list with one for every layer, None for those that
    have no such module."""
    value: int | None = getattr(config.per_layer_config[index], stated) if isinstance(stated, str) else stated[index]
    if value is None and not isinstance(stated, str):
        return None
    if type(value) is not int or value < 1:
        raise ValueError(f"layer {index} has the width {value!r}, expected a whole number of at least 1")
    return value


def cut_units(block: nn.Module, each: Mapping[str, Any], units: int, groups: int, index: int) -> None:
    """Cut a module of a block, sum over units u of C_u h(P_u x), to so many units in so many groups.

    The rows P_u are those of the producers, section after section; the columns C_u are those of the consumer. What forward
    methods read of the widths is brought up to date in the module that owns it.
    """
    size, widths = each["size"], {"unit": units, "group": groups}
    if groups > units or units % groups:
        raise ValueError(f"layer {index} cannot have {units} units in {groups} groups")
    for path, levels in each["producers"].items():
        rows = size * sum(widths[level] for level in levels.split())
        cut(block.get_submodule(path), "outputs", rows)
    consumer: Any = block.get_submodule(each["consumer"])
    cut(consumer, "inputs", size * units)
    if each.get("biases") and each["biases"][index] and consumer.bias is None:
        outputs = consumer.nf if isinstance(consumer, Conv1D) else consumer.out_features
        consumer.bias = nn.Parameter(consumer.weight.new_zeros(outputs))
    counts = {"units": units, "groups": groups, "members": units // groups}
    counts |= {"outputs": units * size, "group_outputs": groups * size}
    owner: Any = block.get_submodule(each["owner"])
    views: dict[str, int] = {}
    for name, counted in each["counts"].items():
        if name.startswith("config."):
            views[name.removeprefix("config.")] = counts[counted]
        elif type(getattr(owner, name)) is not int:
            raise ValueError(f"{name} of {type(owner).__name__} is no number that a width could be")
        else:
            setattr(owner, name, counts[counted])
    if views:
        owner.config = ConfigView.of(owner.config, views)


def cut(module: Any, side: str, count: int) -> None:
    """Keep so many of the outputs or inputs of a module."""
    transposed = isinstance(module, Conv1D)
    axis = int((side == "inputs") != transposed)
    if not 1 <= count <= module.weight.shape[axis]:
        raise ValueError(f"{count} {side} are stated where the configuration builds {module.weight.shape[axis]}")
    names = {"weight": axis, "bias": 0} if side == "outputs" and module.bias is not None else {"weight": axis}
    for name, dimension in names.items():
        whole = getattr(module, name)
        kept = whole.detach().narrow(dimension, 0, count).clone(memory_format=torch.contiguous_format)
        setattr(module, name, nn.Parameter(kept, requires_grad=whole.requires_grad))
    stated = ("nx", "nf") if transposed else ("out_features", "in_features")
    setattr(module, stated[axis], count)


def __getattr__(name: str) -> Any:
    """Derive a class from the one of transformers of the same name, once."""
    stock = None if name.startswith("__") else getattr(transformers, name, None)
    if not isinstance(stock, type) or not issubclass(stock, (transformers.PreTrainedModel, transformers.PreTrainedConfig)):
        raise AttributeError(f"{__name__} has no {name!r}")
    if issubclass(stock, transformers.PreTrainedConfig):
        made: Any = type(name, (OwnConfig, stock), {"__module__": __name__})
    else:
        known = {key: getattr(stock, key) for key in OF_ITS_SOURCE if hasattr(stock, key)}
        made = type(name, (OwnModel, stock), {"__module__": __name__, **known})
        if stock.config_class is not None:
            made.config_class = __getattr__(stock.config_class.__name__)
    return globals().setdefault(name, made)
