"""Saliency methods by the score s(W) that each gives to single weights; all sum it over the weights removed with a unit.

`unit_methods` names them. Their work is done in `saliency` and `path_saliency`, which are imported when it begins, because the
command line reads the options here and need not wait for torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from gramian.adapters.methods.types import ModelContext
    from gramian.adapters.methods.unit_sets import UnitSet

__all__ = [
    "GROUPS",
    "IMPORTANCES",
    "OUTPUTS",
    "SAMPLES",
    "activates",
    "check",
    "grasp",
    "llm_pruner",
    "ntk_sap",
    "predicts",
    "px",
    "snip",
    "synflow",
    "tasp",
]

OUTPUTS = ("logit", "logprob", "loss")
SAMPLES = ("each", "batch")
IMPORTANCES = ("element", "vector")  # of which absolute values are taken
GROUPS = ("sum", "product", "max", "last")  # of the operators that a unit is coupled through


def tasp(context: ModelContext, *, output: str = "logit", samples: str = "each") -> Sequence[np.ndarray]:
    """s = |df/dW W|, with f a scalar output of the model (TASP, Eqs. (2) and (4)).

    output: f is the mean over a window of the `logit` of the token that was observed, of its `logprob`, or of the `loss`,
    which is the logprob with the other sign. samples: s is the mean of the absolute values of `each` window, or the absolute
    value for the whole `batch`, as Algorithm 1 prints it, where gradients of opposite signs cancel.
    """
    from gramian.adapters.methods.saliency import first_order, value_of

    check(output=output, samples=samples)
    return first_order(context, value_of(context, output), samples == "each")


def snip(context: ModelContext, *, samples: str = "batch") -> Sequence[np.ndarray]:
    """s = |dL/dW W|, with L the mean loss over all windows (Lee, Ajanthan, Torr 2019). samples: as for `tasp`."""
    from gramian.adapters.methods.saliency import first_order, value_of

    check(samples=samples)
    return first_order(context, value_of(context, "loss"), samples == "each")


def grasp(context: ModelContext) -> Sequence[np.ndarray]:
    """s = W (H dL/dW), with H the Hessian of the loss L (Wang, Zhang, Grosse 2020).

    The weights are kept whose removal would lower |dL/dW|^2 most. The largest s is kept, so s is minus the score of that
    paper, which removes the largest. TASP, Appendix A.4, prints their score and keeps the largest: the opposite ranking.
    """
    from gramian.adapters.methods.saliency import gradient_flow, value_of

    return gradient_flow(context, value_of(context, "loss"))


def llm_pruner(
    context: ModelContext, *, order: int = 2, importance: str = "element", group: str = "sum"
) -> Sequence[np.ndarray]:
    """s = |g W - 1/2 F W^2| with order 2, s = |g W| with order 1: the fall of the loss when W goes to zero.

    g is the mean gradient, and the mean squared gradient F stands for the Hessian's diagonal (Ma, Fang, Wang 2023). importance:
    of every `element`, with which TASP compares at order 2, or of the `vector` of all weights of an operator that go with a
    unit, `|sum (g W - 1/2 F W^2)|`, in which signs cancel. group: the operators that a unit is coupled through are put together
    by `sum`, `product`, `max`, or the consumer counts alone (`last`)."""
    from gramian.adapters.methods.saliency import taylor, value_of

    check(order=order, importance=importance, group=group)
    return taylor(context, value_of(context, "loss"), order, importance, group)


def ntk_sap(context: ModelContext, *, epsilon: float = 1e-4, draws: int = 8, seed: int = 0) -> Sequence[np.ndarray]:
    """s = |d/dW mean over draws of |f(z; W) - f(z; W + D)|^2|, z ~ N(0, I) in place of token embeddings, D ~ N(0, epsilon I).

    The score reads no text, and is not multiplied by W (TASP, Appendix A.4, after Wang, Li, Sun 2023)."""
    from gramian.adapters.methods.saliency import kernel_alignment

    check(epsilon=epsilon, draws=draws, seed=seed)
    return kernel_alignment(context, epsilon, draws, seed)


def synflow(context: ModelContext) -> Sequence[np.ndarray]:
    """s = |df(1; |W|)/d|W|| |W|, with f the sum of all outputs for ones as inputs and absolute weights, in float64.

    The score needs no data (Tanaka et al. 2020; one of their rounds is done)."""
    from gramian.adapters.methods.path_saliency import synaptic_flow

    return synaptic_flow(context)


def px(context: ModelContext) -> Sequence[np.ndarray]:
    """s = |dR/d(W^2)| W^2, R = g(x^2, 1, a) h(1, W^2, 1), in float64 (Iurada, Ciccone, Tommasi 2024).

    R sums over paths, and the activations a say which paths each window takes; see `path_exclusion`."""
    from gramian.adapters.methods.path_saliency import path_exclusion

    return path_exclusion(context)


def predicts(model: nn.Module, unit_sets: Sequence[UnitSet]) -> None:
    """Raise ValueError for a model that predicts no next token."""
    from gramian.adapters.models.tasks import check_predicts

    check_predicts(model)


def activates(model: nn.Module, unit_sets: Sequence[UnitSet]) -> None:
    """Raise ValueError for a model whose activation functions are no modules."""
    from gramian.adapters.methods.path_saliency import activation_modules

    activation_modules(model)


def check(
    *,
    output: str = "logit",
    samples: str = "each",
    order: int = 2,
    importance: str = "element",
    group: str = "sum",
    epsilon: float = 1e-4,
    draws: int = 8,
    seed: int = 0,
) -> None:
    """Raise ValueError for an option out of range; a method passes those that it has."""
    for name, value, known in (
        ("output", output, OUTPUTS),
        ("samples", samples, SAMPLES),
        ("importance", importance, IMPORTANCES),
        ("group", group, GROUPS),
    ):
        if value not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)} but is {value!r}")
    if order not in (1, 2) or isinstance(order, bool):
        raise ValueError(f"order must be 1 or 2 but is {order!r}")
    if not isinstance(epsilon, int | float) or not 0 < epsilon < float("inf"):
        raise ValueError(f"epsilon must be a positive number but is {epsilon!r}")
    for name, number, least in (("draws", draws, 1), ("seed", seed, 0)):
        if not isinstance(number, int) or number < least:
            raise ValueError(f"{name} must be a whole number of at least {least} but is {number!r}")
