"""How the baseline runs a case. Frozen: it is written for one commit.

Every function imports what it needs when it is called, so that `present` can take over those that no name has changed in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tiny_models import tiny_tokenizer

__all__ = [
    "captured",
    "command",
    "curvature",
    "embeddings",
    "head_distances",
    "kernel_change",
    "load",
    "perplexity",
    "prune",
    "remove",
    "sampled",
    "save",
    "shrunk",
    "stream",
    "written",
]

Settings = Mapping[str, Any]


def prune(model: Any, tokens: torch.Tensor, heldout: torch.Tensor | None, settings: Settings) -> dict[str, Any]:
    """Zeros in single weights, in place. Returns the report."""
    from gramian.adapters import prune

    given = {name: Path(value) if name == "problems" else value for name, value in settings.items()}
    return prune(model, tokens, heldout=heldout, progress=False, **given).to_dict()


def remove(model: Any, tokens: torch.Tensor, heldout: torch.Tensor | None, settings: Settings) -> dict[str, Any]:
    """Whole heads and channels leave, in place. Returns the report."""
    from gramian.adapters import prune_structured

    given = {name: slice(*value) if name == "blocks" else value for name, value in settings.items()}
    return prune_structured(model, tokens, heldout=heldout, progress=False, **given).to_dict()


def stream(source: Path, out: Path, tokens: torch.Tensor, heldout: torch.Tensor | None, settings: Settings) -> dict[str, Any]:
    """`prune` with one block in memory at a time, from a checkpoint to `out`. Returns the report, which is saved there too."""
    from gramian.adapters import stream_model

    rest = {name: value for name, value in settings.items() if name != "dtype"}
    with stream_model(source, out, dtype=settings.get("dtype", "auto")) as opened:
        opened.report = prune(opened.model, tokens, heldout, {**rest, "device": opened.visits})
    return opened.report


def save(model: Any, tokenizer: Any, out: Path, form: str, report: Settings) -> None:
    """form: `model`, `structured` or `padded`."""
    from gramian.adapters import save_model, save_structured

    if form == "model":
        save_model(model, tokenizer, out, report=dict(report))
    else:
        save_structured(model, tokenizer, out, pad=form == "padded", report=dict(report))


def load(folder: Path) -> Any:
    from gramian.adapters import load

    return load(folder)[0]


def command(arguments: Sequence[str]) -> int:
    """Exit code of a command line."""
    from gramian.adapters.cli import main

    return main(list(arguments))


# -- one result each, by name ------------------------------------------------------------------------------------------


def perplexity(model: Any, tokens: torch.Tensor, settings: Settings) -> dict[str, Any]:
    from gramian.adapters import paired_difference, perplexity

    found = [perplexity(model, tokens, batch=batch, progress=False) for batch in (1, 3)]
    return {"value": found[0].value, "losses": found[0].losses, "batched": found[1].losses, "paired": paired_difference(*found)}


def embeddings(model: Any, tokens: torch.Tensor, settings: Settings) -> dict[str, Any]:
    from gramian.adapters import embed, mean_cosine

    found = embed(model, tokens)
    return {"embeddings": found, "cosine": mean_cosine(found, found.flip(0))}


def sampled(model: Any, tokens: torch.Tensor, settings: Settings) -> dict[str, Any]:
    """Text from the model itself, where the source is `self`."""
    from gramian.adapters import calibration_tokens

    found = calibration_tokens(tokenizer=tiny_tokenizer(), model=model, **settings)
    return {"windows": found.windows, "source": found.source, "seed": found.seed, "sha256": found.digest}


def head_distances(model: Any, tokens: torch.Tensor, settings: Settings) -> dict[str, Any]:
    from gramian.adapters import head_distances

    return head_distances(model, tokens)


def kernel_change(model: Any, tokens: torch.Tensor, settings: Settings) -> dict[str, Any]:
    """keep: units that stay in every feed-forward module."""
    from gramian.adapters import kernel_change, parts_of

    keep = {name: np.arange(settings["keep"]) for name, part in parts_of(model).items() if part.size == 1}
    found = kernel_change(model, tokens, keep, output=settings["output"])
    figures = ("sign", "plain", "saliency", "gone", "kept", "moved", "smallest", "change", "measured_bound", "linear_bound")
    return {name: getattr(found, name) for name in figures}


def shrunk(model: Any, tokens: torch.Tensor, settings: Settings) -> dict[str, Any]:
    """Every module without its first unit or group: the model cut, and with zeros instead."""
    import copy

    from gramian.adapters import count_parameters, mask_model, parts_of, shrink_model

    keep = {name: np.arange(part.members, part.units) for name, part in parts_of(model).items()}
    masked = copy.deepcopy(model)
    mask_model(masked, keep)
    count = count_parameters(model, keep)
    shrink_model(model, keep)
    return {"count": count, "cut": model.state_dict(), "masked": masked.state_dict(), "config": model.config.to_dict()}


def captured(model: Any, tokens: torch.Tensor, settings: Settings) -> dict[str, Any]:
    """Problems of layers as hooks see them, padding left out, and the weights of a solver written back."""
    from gramian.adapters import capture
    from gramian.solvers import TopK, l0_admm

    with capture(model, settings["names"]) as layers, torch.no_grad():
        model(input_ids=tokens, attention_mask=(tokens % 5 > 0).long())
    problems = {name: layer.problem() for name, layer in layers.items()}
    for name, layer in layers.items():
        layer.assign(l0_admm(problems[name], TopK(0.5)).weights)
    seen = {name: {"gram": each.gram, "anchor": each.anchor, "slope": each.slope, "floor": each.floor}
            for name, each in problems.items()}  # fmt: skip
    return {"problems": seen, "weights": {name: layer.weight for name, layer in layers.items()}}


def written(model: Any, tokens: torch.Tensor, settings: Settings) -> dict[str, Any]:
    """A problem from data, X* != X, written to a file and read again."""
    from gramian.adapters import read_problem, write_problem
    from gramian.solvers import Quadratic

    draw = np.random.default_rng(0).standard_normal
    dense = draw((60, 12))
    problem = Quadratic.from_data(dense + 0.1 * draw((60, 12)), draw((5, 12)), dense)
    write_problem(Path("problem.safetensors"), problem, tokens=60, metadata={"operator": "drawn"})
    found, metadata = read_problem(Path("problem.safetensors"))
    return {"gram": found.gram, "anchor": found.anchor, "slope": found.slope, "floor": found.floor, "metadata": metadata}


def curvature(problem: Any, pattern: Any, *, power: float = 1.0) -> Any:
    """A method of a user's own: keep the weights that cost most to lose alone, w^2 G_jj^power, and refit them."""
    from gramian.solvers import refit

    return refit(problem, pattern.select(problem.anchor**2 * problem.diagonal**power))
