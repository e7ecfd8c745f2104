"""How fast models are, and what they take: timed in turn, each in a process of its own.

Models take turns, A B B A A B, so that what else the machine does meanwhile strikes both, and that neither is always the first;
their ratio is of neighbouring runs.
Each has a process of its own that does nothing but this, so that the peak of its memory holds nothing of the other. Both are in
memory at the same time.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gramian.adapters.devices import usable_device
from gramian.adapters.evaluation.costs import ModelCost, Phase, Rate, Speed
from gramian.adapters.measure.intervals import Interval
from gramian.adapters.models.places import locate
from gramian.progress import bar
from gramian.versions import versions

__all__ = ["speed"]

CHILD = "gramian.adapters.evaluation.speed_child"
PHASES: tuple[Phase, ...] = ("prefill", "decode")
MEMORY = {
    "cuda": "what torch has allocated on the GPU",
    "cpu": "what the process that ran the model resided in, libraries included",
}


class Child:
    """A process that has one model. said: what it said of the model when it had loaded it."""

    def __init__(self, process: subprocess.Popen[str], source: str) -> None:
        self.process, self.source = process, source
        self.said: dict[str, Any] = {}

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send a request and wait for the answer. ValueError for an error there, RuntimeError for a process that has ended."""
        assert self.process.stdin is not None and self.process.stdout is not None
        with suppress(BrokenPipeError):  # the process has ended, as the missing answer says
            self.process.stdin.write(f"{json.dumps(request)}\n")
            self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(
                f"the process that ran {self.source} has ended with the code {self.process.wait()}, perhaps for lack of "
                "memory: try smaller batches, or one model at a time"
            )
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ValueError(answer["error"])
        return answer


@contextmanager
def child(source: str) -> Iterator[Child]:
    """A process for one model, which is ended with the context."""
    with subprocess.Popen(
        [sys.executable, "-P", "-m", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            yield Child(process, source)
        finally:
            process.kill()
            with suppress(OSError):  # what is not written yet has no reader
                process.communicate()


def speed(
    model: str | Path,
    against: str | Path | None = None,
    *,
    batch: Sequence[int] = (1, 4),
    length: Sequence[int] = (64, 256),
    tokens: int = 8,
    repeats: int = 3,
    device: str = "cpu",
    dtype: str = "auto",
    threads: int | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Speed:
    """Time a model, or two in turn: tokens a second as prompts are read and as tokens are made, memory, parameters, bytes.

    Every batch size goes with every length. Random prompts are read at once (prefill), then tokens are made one after another,
    greedily, with a cache (decode). Each is run once to warm up, and then `repeats` times, in which two models take turns.
    Encoders only read. With the defaults a model of 270 million parameters takes about a minute on two cores.

    Parameters
    ----------
    model : str or Path
        The model: a directory, a `.gguf` file, a hub id, or `demo`, as `load` takes it.
    against : str or Path, optional
        Another one, which it takes turns with.
    batch : sequence of int
        How many prompts are read at a time.
    length : sequence of int
        How many tokens each of them has.
    tokens : int
        How many tokens are made after a prompt.
    repeats : int
        How many runs count.
    device : str
        Where models run.
    dtype : {"auto", "float32", "bfloat16", "float16"}
        The dtype in which weights are stored, as `load` takes it; on a CPU models run in float32.
    threads : int, optional
        How many threads torch uses on a CPU: by default as many as here.
    seed : int
        Seed of the prompts.
    progress : bool
        Whether it is shown how many runs are done.

    Returns
    -------
    Speed
        Costs of every model, rates with quartiles and with the ratio of pairs; `as_dict()` for JSON, `table()` or `print`.

    Raises
    ------
    ValueError
        Numbers below 1, prompts and tokens that are longer than the context of a model, a device that cannot be used, and
        whatever `load` raises.
    FileNotFoundError
        There is no such model.
    RuntimeError
        A process that ran a model has ended, as it does where memory runs out.

    Examples
    --------
    >>> import tempfile
    >>> import gramian
    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> shape = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2, vocab_size=50)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     saved = gramian.save(LlamaForCausalLM(LlamaConfig(**shape)), None, f"{folder}/model")
    ...     found = gramian.speed(saved, batch=[1], length=[8], tokens=2, repeats=1, progress=False)
    >>> found.models[0].parameters
    3824
    """
    started = time.perf_counter()
    counts = {"batch": batch, "length": length, "tokens": [tokens], "repeats": [repeats], "threads": [threads or 1]}
    for name, values in counts.items():
        if not values or any(not isinstance(each, int) or each < 1 for each in values):
            raise ValueError(
                f"{name} is {values[0] if len(values) == 1 else list(values)}, expected whole numbers of at least 1"
            )
    place = usable_device(device)
    sources = [str(each) for each in (model, against) if each is not None]
    for source in sources:
        locate(source)
    cells = list(product(batch, length))
    total = (repeats + 1) * len(cells) * len(sources)
    with ExitStack() as stack, bar(total + len(sources), "speed", "run", progress) as done:
        children = [stack.enter_context(child(source)) for source in sources]
        for each in children:
            load_in(each, device, dtype, threads or torch.get_num_threads())
            done.update()
        vocabulary = min(each.said["vocabulary"] for each in children)
        check_lengths(children, max(length), tokens)
        runs: dict[tuple[int, int], list[list[dict[str, Any]]]] = {cell: [[] for _ in children] for cell in cells}
        for turn in range(repeats + 1):
            for cell, found in runs.items():
                request = {"batch": cell[0], "length": cell[1], "tokens": tokens if turn else 1, "vocabulary": vocabulary}
                for each, kept in list(zip(children, found))[:: -1 if turn % 2 else 1]:
                    kept.append(each.ask({**request, "seed": seed}))
                    done.update()
        costs = tuple(cost_of(each, [one[place] for one in runs.values()]) for place, each in enumerate(children))
    counted = {cell: [each[1:] for each in found] for cell, found in runs.items()}
    rates = [rate for phase in PHASES for cell, found in counted.items() for rate in rates_of(phase, cell, found, tokens)]
    said = children[0].said
    settings = {
        "device": said["device"],
        "threads": said["threads"],
        "dtype": f"runs in {said['runs_in']}, stored in {said['stored_in']}",
        "batch": list(batch),
        "length": list(length),
        "tokens": tokens,
        "repeats": repeats,
        "seed": seed,
        "memory": MEMORY["cuda" if place.type == "cuda" else "cpu"],
        "versions": dict(versions()),
    }
    return Speed(costs, tuple(rates), settings, time.perf_counter() - started)


def load_in(each: Child, device: str, dtype: str, threads: int) -> None:
    """Let a process load its model, and keep what it says of it."""
    each.said = each.ask({"model": each.source, "device": device, "dtype": dtype, "threads": threads})


def check_lengths(children: Sequence[Child], longest: int, tokens: int) -> None:
    """Raise ValueError, before any run, for prompts and tokens that a model does not hold."""
    for each in children:
        made = tokens if each.said["kind"] == "causal" else 0
        if each.said["context"] is not None and longest + made > each.said["context"]:
            raise ValueError(
                f"prompts of {longest} tokens and {made} more are longer than the context of {each.source}, which has "
                f"{each.said['context']}"
            )


def cost_of(each: Child, runs: Sequence[Sequence[dict[str, Any]]]) -> ModelCost:
    """What one model costs, by what its process said."""
    peaks = [run["peak_bytes"] for some in runs for run in some if run["peak_bytes"] is not None]
    kept = ("parameters", "active", "bytes_on_disk", "load_seconds", "loaded_bytes")
    return ModelCost(model=each.source, **{name: each.said[name] for name in kept}, peak_bytes=max(peaks, default=None))


def rates_of(phase: Phase, cell: tuple[int, int], found: Sequence[Sequence[dict[str, Any]]], tokens: int) -> list[Rate]:
    """The rate of a phase, or nothing where a model has no such phase. found: the runs of every model."""
    seconds = [[run[phase] for run in runs] for runs in found]
    if any(each is None for runs in seconds for each in runs):
        return []
    made = cell[0] * (cell[1] if phase == "prefill" else tokens)
    per_second = [made / np.array(runs) for runs in seconds]
    against = quartiles(per_second[1]) if len(found) > 1 else None
    ratio = quartiles(per_second[0] / per_second[1]) if len(found) > 1 else None
    return [Rate(phase, *cell, quartiles(per_second[0]), against, ratio, tuple(map(tuple, seconds)))]


def quartiles(values: np.ndarray) -> Interval:
    """The median between the lower and the upper quartile."""
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
    return Interval(float(median), float(low), float(high))
