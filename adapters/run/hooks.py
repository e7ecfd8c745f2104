"""Hooks that stream what flows into chosen modules of any torch model into moments, for one layer or many at once."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from gramian.adapters.devices import current_device, precision_of_products, solver_array
from gramian.adapters.models.experts import Packed
from gramian.adapters.models.layers import Layer, Site
from gramian.adapters.run.routing import watch_experts
from gramian.solvers import Moments

__all__ = ["capture", "feed", "tapped", "watch"]

MASKS = ("attention_mask", "decoder_attention_mask")
CROSSED = re.compile(r"(EncDecAttention|encoder_attn|crossattention)\..*\b(k|v|key|value|k_proj|v_proj)$")  # read the encoder


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
    `decoder_attention_mask`. When the context ends every hook is removed; the layers can still be used. Every layer has
    moments of its own, also where several receive the same input.

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
        A name that is no such module; naming the layer, NaN or Inf in its inputs.

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
            raise ValueError(f"the model has no module {name!r}; names come from model.named_modules()")
        layers[name] = Layer(name, modules[name])
    padding: dict[str, torch.Tensor] = {}
    bound, paired = inspect.signature(model.forward), getattr(getattr(model, "config", None), "is_encoder_decoder", False)

    def remember_mask(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = bound.bind_partial(*args, **kwargs).arguments | kwargs
        padding.clear()
        for which in MASKS:
            if isinstance(mask := given.get(which), torch.Tensor) and mask.ndim == 2:
                padding[which] = mask

    def receiver(layer: Layer) -> Callable[[torch.Tensor], None]:
        which = MASKS[bool(paired and "decoder" in layer.name.split(".") and not CROSSED.search(layer.name))]

        def receive(inputs: torch.Tensor) -> None:
            mask = padding.get(which)
            tokens = inputs.reshape(-1, inputs.shape[-1])
            if mask is not None and mask.numel() == tokens.shape[0]:
                tokens = tokens[mask.reshape(-1).to(tokens.device).bool()]
            feed(layer.name, layer.moments, tokens)

        return receive

    with ExitStack() as hooks:
        handle = model.register_forward_pre_hook(remember_mask, with_kwargs=True)
        hooks.callback(handle.remove)
        for layer in layers.values():
            hooks.enter_context(watch(layer.module, receiver(layer)))
        yield layers


def tapped(layer: Layer, _: int, inputs: torch.Tensor) -> None:
    """Add inputs to the moments of their layer, whichever batch they are."""
    feed(layer.name, layer.moments, inputs)


def feed(name: str, moments: Moments, inputs: torch.Tensor, dense: torch.Tensor | None = None) -> None:
    """Add tokens to the moments of the layer called `name`, on the tokens' device; an error names the layer."""
    products = precision_of_products(inputs.device, inputs.dtype)
    known = torch.promote_types(inputs.dtype, torch.float32)  # numpy has no bfloat16
    try:
        with current_device(inputs.device):
            # numpy forms A^T A with half the products of a general one, and the solvers want numpy on a CPU anyway.
            star = solver_array(inputs.to(known))
            moments.update(star, None if dense is None else solver_array(dense.to(known)), products=products)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
