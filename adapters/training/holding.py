"""Zeros held while a model is trained, whatever the optimiser does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook
from transformers import TrainerCallback

from gramian.adapters.training.masks import hold, masks_of, operator_weights, paired, unwrapped

__all__ = ["HoldZeros", "held"]


@contextmanager
def held(weights: Mapping[nn.Parameter, torch.Tensor]) -> Iterator[None]:
    """Hold the zeros of masks, by their weights, while the context is open.

    A gradient is masked as soon as it is added up, so that moments of pruned weights are zero, momentum and decay have nothing
    to move, and a norm that clips gradients is that of the weights that are trained. After every step of every optimiser of
    torch that has one of the weights, these are masked as well, for moments from before and for what else a step may do.
    """
    masks = {weight: mask.to(weight.device) for weight, mask in weights.items()}

    def mask_gradient(weight: torch.Tensor) -> None:
        if weight.grad is not None:
            hold(weight.grad, masks[weight])  # type: ignore[index]

    def after_step(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        for group in optimizer.param_groups:
            for weight in group["params"]:
                if (mask := masks.get(weight)) is not None:
                    hold(weight, mask)

    with ExitStack() as hooks:
        for weight, mask in masks.items():
            hold(weight, mask)
            if weight.requires_grad:
                hooks.callback(weight.register_post_accumulate_grad_hook(mask_gradient).remove)
        hooks.callback(register_optimizer_step_post_hook(after_step).remove)
        yield


class HoldZeros(TrainerCallback):
    """V <- M V for every operator at every step: the zeros that a model has remain exactly zero while it is trained.

    It is a callback of `transformers.Trainer`, and a context for any other loop around optimisers of torch: plain, fused or
    foreach, with momentum, weight decay and gradients added up over several batches. What counts as a zero is a weight of a
    `Linear`, `Conv1D` or packed experts module inside the blocks that is exactly zero when the object is made, whichever
    pattern or padding it is of. Embeddings, heads, biases and norms are left alone. Between the steps of an optimiser that
    shards or copies weights (FSDP, DeepSpeed) nothing is held: give the result to `gramian.reapply`.

    Parameters
    ----------
    model : nn.Module
        The pruned model, before it is trained, with or without what wraps it.
    masks : mapping, optional
        Masks by the names of weights, true where a weight is kept, in place of those that the model's zeros give.

    Raises
    ------
    ValueError
        A model without a zero in any operator; masks of operators that it has not, or of another shape; training another model
        with the callback.

    Examples
    --------
    >>> import gramian, torch
    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> shape = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2, vocab_size=50)
    >>> model = LlamaForCausalLM(LlamaConfig(**shape)).eval()
    >>> windows = torch.arange(48).reshape(2, 24)
    >>> _ = gramian.prune(model, windows, "wanda", sparsity="2:4", progress=False)
    >>> optimizer = torch.optim.AdamW(model.parameters())
    >>> with gramian.HoldZeros(model):
    ...     model(windows, labels=windows).loss.backward()
    ...     optimizer.step()
    >>> int((model.model.layers[0].mlp.up_proj.weight == 0).sum())
    192

    Trainer(model, ..., callbacks=[gramian.HoldZeros(model)]) does the same.
    """

    def __init__(self, model: nn.Module, masks: Mapping[str, torch.Tensor] | None = None) -> None:
        found = masks_of(model) if masks is None else paired(model, masks)
        if not found:
            raise ValueError(
                f"{type(unwrapped(model)).__name__} has no zero in any operator, so there is nothing to hold: make HoldZeros "
                "of the pruned model, before it is trained"
            )
        weights = dict(operator_weights(model))
        self.masks: dict[str, torch.Tensor] = found
        self.weights = {weights[name]: mask for name, mask in found.items()}
        self.open = ExitStack()
        self.depth = 0

    def __enter__(self) -> HoldZeros:
        if not self.depth:
            self.open.enter_context(held(self.weights))
        self.depth += 1
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.depth -= 1
        if not self.depth:
            self.open.close()

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Begin to hold."""
        model = given.get("model")
        if model is not None:
            own = {id(weight) for weight in unwrapped(model).parameters()}
            if not all(id(weight) in own for weight in self.weights):
                raise ValueError(
                    f"HoldZeros was made of another {type(unwrapped(model)).__name__} than the one that is trained, or its "
                    "weights have been replaced: make it of the model that the Trainer is given"
                )
        if not self.depth:  # else a run before ended with an error
            self.__enter__()

    def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Hold no longer."""
        while self.depth:
            self.__exit__(None, None, None)
