"""How the working tree runs a case: as the baseline does, but for what has another name or form now.

A renamed setting, value or flag is entered in `renamed` alone. Where the call itself changed, the function that is taken over
from `baseline` is replaced by one that makes the new call; what it takes and what it returns stay as they are.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tiny_models import tiny_tokenizer

from golden.baseline import Settings, captured, curvature, embeddings, head_distances, load, perplexity, written
from golden.renamed import RENAMED

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


def prune(model: Any, tokens: torch.Tensor, heldout: torch.Tensor | None, settings: Settings) -> dict[str, Any]:
    from gramian.adapters import prune

    given = dict(present_settings(settings))
    method = given.pop("method")
    if "pattern" in given:
        given["sparsity"] = given.pop("pattern")
    return prune(model, tokens, method, heldout=heldout, progress=False, **given).to_dict()


def remove(model: Any, tokens: torch.Tensor, heldout: torch.Tensor | None, settings: Settings) -> dict[str, Any]:
    from gramian.adapters import prune

    given = {name: slice(*value) if name == "blocks" else value for name, value in present_settings(settings).items()}
    method = given.pop("method")
    return prune(model, tokens, method, heldout=heldout, progress=False, **given).to_dict()


def stream(source: Path, out: Path, tokens: torch.Tensor, heldout: torch.Tensor | None, settings: Settings) -> dict[str, Any]:
    from gramian.adapters import PruneConfig, Tokens
    from gramian.adapters.resuming import journaled
    from gramian.adapters.run.streaming import open_checkpoint

    given = {name: value for name, value in present_settings(settings).items() if name != "dtype"}
    if "pattern" in given:
        given["sparsity"] = given.pop("pattern")
    opened = open_checkpoint(source, dtype=settings.get("dtype", "auto"))
    calibration = Tokens(tokens, "a tensor")
    report = journaled(opened, calibration, PruneConfig(**given), out=Path(out), heldout=heldout, progress=False)
    return report.to_dict()


def save(model: Any, tokenizer: Any, out: Path, form: str, report: Settings) -> None:
    from gramian.adapters import save

    save(model, tokenizer, out, pad=form == "padded", report=report)


def command(arguments: Sequence[str]) -> int:
    from gramian.adapters.cli.main import main

    return main(present_arguments(arguments))


def sampled(model: Any, tokens: torch.Tensor, settings: Settings) -> dict[str, Any]:
    from gramian.adapters import calibration

    found = calibration(tokenizer=tiny_tokenizer(), model=model, **settings)
    return {"windows": found.windows, "source": found.source, "seed": found.seed, "sha256": found.digest}


def kernel_change(model: Any, tokens: torch.Tensor, settings: Settings) -> dict[str, Any]:
    from gramian.adapters import kernel_change, unit_groups_of

    keep = {name: np.arange(settings["keep"]) for name, group in unit_groups_of(model).items() if group.size == 1}
    found = kernel_change(model, tokens, keep, output=settings["output"])
    figures = ("sign", "plain", "saliency", "gone", "kept", "moved", "smallest", "change", "measured_bound", "linear_bound")
    return {name: getattr(found, name) for name in figures}


def shrunk(model: Any, tokens: torch.Tensor, settings: Settings) -> dict[str, Any]:
    from gramian.adapters import count_parameters, mask_model, shrink_model, unit_groups_of

    keep = {name: np.arange(group.members, group.units) for name, group in unit_groups_of(model).items()}
    masked = copy.deepcopy(model)
    mask_model(masked, keep)
    count = count_parameters(model, keep)
    shrink_model(model, keep)
    return {"count": count, "cut": model.state_dict(), "masked": masked.state_dict(), "config": model.config.to_dict()}


def present_settings(settings: Settings) -> dict[str, Any]:
    """Settings, options of methods among them, by their names of today."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            value = present_settings(value)
        elif isinstance(value, str | bool):
            value = RENAMED.choices.get(name, {}).get(value, value)
        found[RENAMED.settings.get(name, name)] = value
    return found


def present_arguments(arguments: Sequence[str]) -> list[str]:
    """A command line by its flags of today."""
    flags = {flag_of(old): flag_of(new) for old, new in RENAMED.settings.items()} | dict(RENAMED.flags)
    choices = {flag_of(name): values for name, values in RENAMED.choices.items()}
    found: list[str] = []
    rest = iter(zip(["", *arguments], arguments))
    for before, argument in rest:
        if (form := RENAMED.forms.get(argument)) is not None:
            value = next(rest)[1] if "{}" in form else ""
            found += [word.replace("{}", value) for word in form.split()]
            continue
        renamed = flags.get(argument, choices.get(before, {}).get(argument, argument))
        if renamed is not None:
            found.append(renamed)
    return found


def flag_of(setting: str) -> str:
    return f"--{setting.replace('_', '-')}"
