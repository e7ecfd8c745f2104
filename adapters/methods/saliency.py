"""Saliency of hidden units: derivatives times weights, summed over all weights that are removed with a unit.

    S(u) = sum over incoming and outgoing weights W_ij of u of s(W_ij)                     (TASP, Eq. (4))

Gates and the biases of producers count as incoming weights: they are removed with the unit, and where the activation is ReLU
the signed sums of gradient times weight over incoming and outgoing weights are then equal. The methods differ in s, which is
given below; each function returns one array (count,) for every unit set of the context. A sample is a window, or one text with
its label, alone and without padding: what is averaged over samples counts each of them alike, however long it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from gramian.adapters.data.tokens import samples_of
from gramian.adapters.methods.gradients import Leaves, UnitSums, averaged, descend, leaves_of, prediction_value, run
from gramian.adapters.methods.types import ModelContext
from gramian.adapters.models.examples import Rows
from gramian.adapters.models.tasks import embedded_inputs, outputs_of, token_inputs
from gramian.progress import progress

__all__ = ["GROUPS", "first_order", "gradient_flow", "kernel_alignment", "taylor"]

GROUPS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "sum": lambda parts: parts.sum(axis=0),
    "product": lambda parts: parts.prod(axis=0),
    "max": lambda parts: parts.max(axis=0),
    "last": lambda parts: parts[-1],
}
Value = Callable[[Leaves, Rows], torch.Tensor]  # of the stand-ins and one sample, a scalar


def value_of(context: ModelContext, output: str) -> Value:
    """`prediction_value` of the context's model, as a function of stand-ins and a sample."""
    return lambda leaves, rows: prediction_value(context.model, leaves, rows, output)


def windows_of(context: ModelContext) -> Iterable[Rows]:
    """The samples of the context one by one, with progress where the context shows it."""
    return progress(samples_of(context.windows), "gradients", "window", context.progress)


def summed(context: ModelContext, scores: dict[str, torch.Tensor]) -> list[np.ndarray]:
    """sum of s(w) over the weights w removed with each unit, for every module. scores: s by parameter."""
    sums = UnitSums(context.model, context.unit_sets)
    for name, each in scores.items():
        sums.add(name, each)
    return sums.totals()


def first_order(context: ModelContext, value: Value, each: bool) -> list[np.ndarray]:
    """s = mean over windows of |df/dW W| with `each`, otherwise s = |d(mean f)/dW W|.

    The latter is never above the former, because gradients of samples cancel."""
    leaves = leaves_of(context.model, context.unit_sets)
    if not each:
        (gradients,) = averaged((value(leaves, window) for window in windows_of(context)), leaves)
        return summed(context, {name: (gradients[name] * leaf).abs() for name, leaf in leaves.items()})
    sums = UnitSums(context.model, context.unit_sets)
    with torch.enable_grad():
        for window in windows_of(context):
            descend(value(leaves, window), leaves, lambda name, found: sums.add(name, (found * leaves[name]).abs()))
    return [total / len(samples_of(context.windows)) for total in sums.totals()]


def taylor(
    context: ModelContext, value: Value, order: int, importance: str = "element", group: str = "sum"
) -> list[np.ndarray]:
    """s = |g W - 1/2 F W^2|, the fall of the loss L to second order when W goes to zero; with order 1, s = |g W|.

    g is the mean over windows of dL/dW, and F that of its square, which stands for the diagonal of the Hessian. importance:
    absolute values are taken of every `element`, or of sums over all weights of one operator that go with a unit, a `vector`.
    group: how the operators of a unit are put together, of GROUPS."""
    leaves = leaves_of(context.model, context.unit_sets)
    values = (value(leaves, window) for window in windows_of(context))
    gradients, *squares = averaged(values, leaves, (1, 2)[:order])
    scores = {name: gradients[name] * leaf.detach() for name, leaf in leaves.items()}
    for second in squares:
        scores = {name: scores[name] - 0.5 * second[name] * leaf.detach() ** 2 for name, leaf in leaves.items()}
    sums = UnitSums(context.model, context.unit_sets)
    for name, each in scores.items():
        sums.add(name, each if importance == "vector" else each.abs())
    return [GROUPS[group](np.abs(part)) for part in sums.parts()]


def gradient_flow(context: ModelContext, value: Value) -> list[np.ndarray]:
    """s = W (H g), with g the gradient and H the Hessian of the mean loss.

    H g is the derivative of <dL/dW, g> at fixed g. The removal of a weight changes |g|^2, the rate at which the loss falls,
    by -2 W (H g) to first order.
    """
    leaves = leaves_of(context.model, context.unit_sets)
    with sdpa_kernel(SDPBackend.MATH):  # the fused kernels of attention have no second derivative
        (gradients,) = averaged((value(leaves, window) for window in windows_of(context)), leaves)

        def along(window: Rows) -> torch.Tensor:
            found = torch.autograd.grad(value(leaves, window), list(leaves.values()), create_graph=True)
            return sum((each * gradients[name]).sum() for name, each in zip(leaves, found))  # type: ignore[return-value]

        (products,) = averaged((along(window) for window in windows_of(context)), leaves)
    return summed(context, {name: leaf * products[name] for name, leaf in leaves.items()})


def kernel_alignment(context: ModelContext, epsilon: float, draws: int, seed: int) -> list[np.ndarray]:
    """s = |d/dW mean over draws of |f(z; W) - f(z; W + D)|^2|, with f all outputs.

    z is one window of standard normal vectors in place of token embeddings, and D ~ N(0, epsilon I) changes the weights that
    are scored."""
    model = context.model
    leaves, read = leaves_of(model, context.unit_sets), token_inputs(model, samples_of(context.windows)[0])
    some = next(iter(leaves.values()))
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(some)

    def difference() -> torch.Tensor:
        inputs = embedded_inputs(model, read, lambda embeddings: normal(*embeddings.shape))
        moved = {name: leaf + epsilon**0.5 * normal(*leaf.shape) for name, leaf in leaves.items()}
        return ((outputs_of(run(model, leaves, inputs)) - outputs_of(run(model, moved, inputs))) ** 2).sum()

    (gradients,) = averaged((difference() for _ in progress(range(draws), "draws", "draw", context.progress)), leaves)
    return summed(context, {name: each.abs() for name, each in gradients.items()})
