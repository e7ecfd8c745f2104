"""What a training that was interrupted goes on from, in a directory beside its output: tensors and numbers, nothing pickled.

OUT.tuning/run.json              which run it is, how far it is, and what was measured on the way
OUT.tuning/tensors.safetensors   the weights that are trained, the best ones so far, the moments of the optimiser, and windows
                                 that the teacher wrote
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from gramian.adapters.drafts import new_directory
from gramian.adapters.files import write_json
from gramian.adapters.run.journal import differences
from gramian.adapters.training.places import RUN, TENSORS, refuse_other

__all__ = ["Progress", "restored", "stored"]


@dataclass
class Progress:
    """How far training is. step: steps done. writing: seconds in which the teacher wrote, before those of training. checks:
    held-out losses so far, in order. best: the number of the lowest."""

    step: int = 0
    seconds: float = 0.0
    writing: float = 0.0
    checks: list[dict[str, float]] = field(default_factory=list)
    best: int = 0


def stored(
    folder: Path,
    fingerprint: Mapping[str, Any],
    progress: Progress,
    weights: Mapping[str, torch.Tensor],
    best: Mapping[str, torch.Tensor],
    optimizer: torch.optim.Optimizer,
    written: torch.Tensor,
) -> None:
    """Replace what is in the directory, all of it or nothing. written: windows that the teacher wrote."""
    tensors = {f"weight/{name}": each for name, each in weights.items()} | {f"best/{name}": each for name, each in best.items()}
    moments = optimizer.state_dict()["state"]
    for number, name in enumerate(weights):
        tensors |= {f"moment/{key}/{name}": each for key, each in moments.get(number, {}).items()}
    tensors["written"] = written
    refuse_other(folder, "it is left as it is, and the training ends here")
    with new_directory(folder, overwrite=True) as draft:
        save_file({name: each.detach().cpu().contiguous() for name, each in tensors.items()}, draft / TENSORS)
        write_json(draft / RUN, {"fingerprint": fingerprint, "progress": asdict(progress)})


def restored(
    folder: Path,
    fingerprint: Mapping[str, Any],
    weights: Mapping[str, torch.Tensor],
    optimizer: torch.optim.Optimizer,
) -> tuple[Progress, dict[str, torch.Tensor], torch.Tensor]:
    """Put back the weights and moments of a directory; return how far it was, the best weights, and the windows that the
    teacher wrote. ValueError, naming what differs, for the directory of another run, and for a damaged one."""
    try:
        document = json.loads((folder / RUN).read_text(encoding="utf-8"))
        found = document["fingerprint"]
        progress = Progress(**document["progress"])
        tensors = load_file(folder / TENSORS)
    except (ValueError, KeyError, TypeError, OSError, SafetensorError) as error:
        raise ValueError(f"{folder} cannot be read ({error}): begin again, which replaces it (--overwrite)") from error
    if other := differences(found, json.loads(json.dumps(fingerprint))):
        # A training that was interrupted has changed the model that it was given.
        how = ", with the model as it was before it," if any(each.startswith("weights ") for each in other) else ""
        raise ValueError(
            f"{folder} is of another run: {'; '.join(other)}. Repeat that run{how} to go on with it, or begin again "
            "(--overwrite)"
        )
    with torch.no_grad():
        for name, each in weights.items():
            each.copy_(tensors[f"weight/{name}"])
    keys = {name.split("/")[1] for name in tensors if name.startswith("moment/")}
    moments = {
        number: {key: tensors[f"moment/{key}/{name}"] for key in keys if f"moment/{key}/{name}" in tensors}
        for number, name in enumerate(weights)
    }
    optimizer.load_state_dict({**optimizer.state_dict(), "state": {number: each for number, each in moments.items() if each}})
    best = {name: tensors[f"best/{name}"].to(each.device) for name, each in weights.items()}
    return progress, best, tensors["written"]
