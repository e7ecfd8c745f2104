"""Hooks that stream what flows into chosen modules of any torch model into moments, for one layer or many at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn

from gramian.adapters.devices import current_device, precision_of_products, solver_array
from gramian.adapters.models.experts import Packed
from gramian.adapters.models.layers import Layer, Site
from gramian.adapters.run.padding import Padding
from gramian.adapters.run.routing import watch_experts
from gramian.solvers import Moments

__all__ = ["capture", "feed", "tapped", "watch"]


@contextmanager
def watch(site: Site, receive: Callable[[Any], None]) -> Iterator[None]:
    """Call `receive(inputs)` with the input tensor of every call of a module while the context is open, and with what was
    `Routed` to the experts of a packed parameter."""
    if isinstance(site, Packed):
        with watch_experts(site, receive):
            yield
        return

    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        receive((args[0] if args else next(iter(kwargs.values()))).detach())

    handle = site.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def capture(model: nn.Module, names: Iterable[str]) -> Iterator[dict[str, Layer]]:
    """Stream G = X^T X of what flows into layers of any torch model, X (tokens x inputs), while the context is open.

    Afterwards `layers[name].problem()` is the layer's problem for any solver, and `layers[name].assign(weights)` writes the
    answer back. Every token that reaches a module counts, except padding: where the model is called with a two-dimensional
    `attention_mask`, tokens that it marks 0 are left out, and in the decoder of an encoder-decoder model those of
    `decoder_attention_mask`. Where the inputs of a layer are not of the mask's shape, the call is made once more with other
    tokens in place of the padding, by which its rows are told apart; of rows that were sorted or routed that is an error. When
    the context ends every hook is removed; the layers can still be used. Every layer has moments of its own, also where several
    receive the same input.

    Parameters
    ----------
    model : nn.Module
        Any torch model; its family needs no row in the tables of `gramian.adapters`.
    names : str or iterable of str
        Full names of `Linear` or `Conv1D` modules, as in `model.named_modules()`.

    Returns
    -------
    context manager of dict of Layer
        The layers by name; their moments grow while the model runs.

    Raises
    ------
    ValueError
        A name that is no such module; naming the layer, NaN or Inf in its inputs, and inputs under a padding mask of which it
        cannot be known which are padding.

    Examples
    --------
    >>> import gramian, torch
    >>> from gramian.solvers import NM, sparsegpt
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
    >>> with gramian.capture(model, ["2"]) as layers:
    ...     _ = model(torch.randn(100, 8, generator=torch.Generator().manual_seed(0)))
    >>> layers["2"]
    Layer(2, 4 outputs x 16 inputs, 100 tokens)
    >>> layers["2"].assign(sparsegpt(layers["2"].problem(), NM(2, 4)).weights)
    >>> int((model[2].weight == 0).sum())
    32
    """
    modules = dict(model.named_modules())
    layers: dict[str, Layer] = {}
    for name in [names] if isinstance(names, str) else names:
        if name not in modules:
            raise ValueError(absent(model, name))
        refuse_bypassed(name, modules[name])
        layers[name] = Layer(name, modules[name])
    padding = Padding(model, lambda name, tokens: feed(name, layers[name].moments, tokens))
    with ExitStack() as hooks:
        before = model.register_forward_pre_hook(padding.begin, with_kwargs=True)
        hooks.callback(before.remove)
        for name, layer in layers.items():
            hooks.enter_context(watch(layer.module, partial(padding.receive, name)))
        # After the hooks of the layers: the model may be one of them.
        after = model.register_forward_hook(padding.end)
        hooks.callback(after.remove)
        yield layers


def absent(model: nn.Module, name: str) -> str:
    """What to say of a name that no module has: it may be of a parameter, such as one that packs experts."""
    parameter = dict(model.named_parameters()).get(name)
    if parameter is None:
        return f"the model has no module {name!r}; names come from model.named_modules()"
    return (
        f"{name!r} is a parameter {tuple(parameter.shape)}, not a module, so that no hook sees what it is multiplied with: "
        "capture Linear or Conv1D modules"
    )


def refuse_bypassed(name: str, module: nn.Module) -> None:
    """Raise ValueError for modules whose weights are used without a call of the module, so that no hook sees anything."""
    packed = [leaf for leaf, parameter in module.named_parameters(recurse=False) if parameter.ndim == 3]
    if packed and not isinstance(module, nn.modules.conv._ConvNd):
        raise ValueError(
            f"{name} is a {type(module).__name__}, which packs its experts in 3-D parameters ({', '.join(packed)}): each "
            "expert has inputs of its own, which no hook on a module sees; capture Linear or Conv1D modules"
        )
    if type(module).__name__ == "NonDynamicallyQuantizableLinear":
        raise ValueError(
            f"{name} is the output of an nn.MultiheadAttention, which uses its weight without calling it, so no hook "
            "sees its inputs: put a plain Linear in its place that the model calls, or capture other layers"
        )


def tapped(layer: Layer, weight: Callable[[int], float] | None, batch: int, inputs: torch.Tensor) -> None:
    """Add the inputs of a batch to the moments of their layer. weight(batch): how often its tokens count, once where None."""
    feed(layer.name, layer.moments, inputs, weight=1.0 if weight is None else weight(batch))


def feed(name: str, moments: Moments, inputs: torch.Tensor, dense: torch.Tensor | None = None, weight: float = 1.0) -> None:
    """Add tokens to the moments of the layer called `name`, on the tokens' device, each `weight` times; an error names the
    layer."""
    products = precision_of_products(inputs.device, inputs.dtype)
    known = torch.promote_types(inputs.dtype, torch.float32)  # numpy has no bfloat16
    try:
        with current_device(inputs.device):
            # numpy forms A^T A with half the products of a general one, and the solvers want numpy on a CPU anyway.
            star = solver_array(inputs.to(known))
            every = None
            if weight != 1:
                every = solver_array(torch.full(inputs.shape[:-1], weight, dtype=torch.float64, device=inputs.device))
            moments.update(star, None if dense is None else solver_array(dense.to(known)), every, products=products)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
