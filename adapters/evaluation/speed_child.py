"""A process that loads one model and times it, so that its peak of memory is that of this model alone.

It reads requests from stdin and answers on stdout, a JSON object a line each: first what to load, then what to run, until stdin
ends. An error is an answer, `{"error": ...}`.
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from gramian.adapters.data.context import context_of
from gramian.adapters.models.caches import continued, decoded
from gramian.adapters.models.experts import active_weights
from gramian.adapters.models.loading import load, storage_dtype
from gramian.adapters.models.origins import origin_of
from gramian.adapters.models.places import locate, weight_files
from gramian.adapters.models.shrink import count_parameters
from gramian.adapters.models.tasks import kind_of, start_token, token_inputs

__all__ = ["answer", "loaded", "memory", "timed", "weight_bytes"]


def memory(device: torch.device) -> dict[str, int | None]:
    """Bytes now and at the peak: of memory that torch has on a GPU, and else of memory that the process resides in, which Linux
    tells, and of which other systems tell the peak alone."""
    if device.type == "cuda":
        return {"now": torch.cuda.memory_allocated(device), "peak": torch.cuda.max_memory_allocated(device)}
    status = Path("/proc/self/status")
    if status.is_file():
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        return {name: int(fields[key].split()[0]) * 2**10 for name, key in (("now", "VmRSS"), ("peak", "VmHWM"))}
    if sys.platform == "win32":
        return {"now": None, "peak": None}
    import resource

    return {"now": None, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}  # in bytes where it is macOS


def weight_bytes(source: str, model: PreTrainedModel) -> int | None:
    """Bytes of the files that hold a model's weights; None where they are not known."""
    place = locate(source)
    if place.gguf:
        return (Path(place.name) / place.gguf).stat().st_size
    origin = origin_of(model)
    if not place.local and origin is None:
        return None
    single, index = weight_files(Path(place.name) if place.local or origin is None else origin.folder)
    if single.is_file():
        return single.stat().st_size
    if not index.is_file():
        return None
    names: set[str] = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    return sum((index.parent / name).stat().st_size for name in names)


def loaded(request: dict[str, Any]) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Load a model, and say what it is."""
    if request["threads"] is not None:
        torch.set_num_threads(request["threads"])
    started = time.perf_counter()
    model, _ = load(request["model"], dtype=request["dtype"], device=request["device"])
    wait(model.device)
    return model, {
        "load_seconds": time.perf_counter() - started,
        "parameters": count_parameters(model),
        "active": active_weights(model),
        "bytes_on_disk": weight_bytes(request["model"], model),
        "loaded_bytes": memory(model.device)["now"],
        "vocabulary": model.config.get_text_config().vocab_size,
        "context": context_of(model),
        "kind": kind_of(model.config),
        "threads": torch.get_num_threads(),
        "runs_in": str(model.dtype).removeprefix("torch."),
        "stored_in": str(storage_dtype(model)).removeprefix("torch."),
        "device": torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else str(model.device),
    }


def wait(device: torch.device) -> None:
    """Wait until a device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@torch.no_grad()
def steps(model: PreTrainedModel, prompts: torch.Tensor) -> Iterator[torch.Tensor]:
    """What a model answers to prompts, and then token by token, where it makes any."""
    kind = kind_of(model.config)
    if kind == "causal":
        yield from continued(model, prompts)
    elif kind == "seq2seq":
        yield from decoded(model, prompts, start_token(model.config))
    else:
        yield model(**token_inputs(model, prompts)).last_hidden_state


def timed(model: PreTrainedModel, request: dict[str, int]) -> dict[str, Any]:
    """Seconds that a model takes to read random prompts, and to make `tokens` tokens after them; memory at the peak so far."""
    generator = torch.Generator().manual_seed(request["seed"])
    prompts = torch.randint(request["vocabulary"], (request["batch"], request["length"]), generator=generator).to(model.device)
    running = steps(model, prompts)
    times = [now(model.device)]
    next(running)
    times.append(now(model.device))
    made = sum(1 for _ in islice(running, request["tokens"]))
    times.append(now(model.device))
    return {
        "prefill": times[1] - times[0],
        "decode": times[2] - times[1] if made else None,
        "peak_bytes": memory(model.device)["peak"],
    }


def now(device: torch.device) -> float:
    """The time in seconds, once the device has done what it was given."""
    wait(device)
    return time.perf_counter()


def answer() -> None:
    """Answer requests until there are no more."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    warnings.simplefilter("ignore")
    model: PreTrainedModel | None = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if model is None:
                model, said = loaded(request)
            else:
                said = timed(model, request)
        except Exception as error:
            said = {"error": str(error) or type(error).__name__}
        answers.write(f"{json.dumps(said)}\n")
        answers.flush()


if __name__ == "__main__":
    answer()
