"""Where arrays live: on a device, in a library that computes there; clocks, memory, and random layers."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from gramian.solvers import Quadratic


@dataclass(frozen=True)
class Place:
    """Where arrays live: a library, and torch's name of the device, on which random numbers are drawn."""

    library: str
    device: str

    def array(self, tensor: torch.Tensor) -> Any:
        """A tensor of this device as an array of the library, without a copy."""
        if self.library == "numpy":
            return tensor.numpy()
        if self.library == "cupy":
            import cupy

            return cupy.from_dlpack(tensor)
        return tensor

    def wait(self) -> None:
        """Return when the device has finished."""
        if self.device == "cuda":
            torch.cuda.synchronize()  # of all streams, cupy's too

    def timed(self, work: Callable[[], Any]) -> tuple[float, Any]:
        """Seconds of work, and what it returns."""
        self.wait()
        started = time.perf_counter()
        result = work()
        self.wait()
        return time.perf_counter() - started, result

    @contextmanager
    def memory(self, record: dict[str, Any]) -> Iterator[None]:
        """The most memory in use on the device, sampled 20 times a second: what torch, cupy and CUDA itself hold together."""
        if self.device == "cpu":
            yield
            return
        done, most = threading.Event(), 0

        def watch() -> None:
            nonlocal most
            while not done.wait(0.05):
                free, total = torch.cuda.mem_get_info()
                most = max(most, total - free)

        release()
        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()
        record["peak GiB"] = most / 2**30


def release() -> None:
    """Make both libraries give back the memory that they keep for later, so that only what follows counts."""
    torch.cuda.empty_cache()
    if "cupy" in sys.modules:
        sys.modules["cupy"].get_default_memory_pool().free_all_blocks()


def places(device: str) -> list[Place]:
    """The libraries that compute on a device, the one that the toolkit takes first."""
    if device == "cpu":
        return [Place("numpy", "cpu"), Place("torch", "cpu")]
    try:
        import cupy

        cupy.cuda.runtime.getDeviceCount()
    except Exception as error:  # not installed, or without a driver
        print(f"without cupy: {error}")
        return [Place("torch", "cuda")]
    return [Place("cupy", "cuda"), Place("torch", "cuda")]


def layer(place: Place, rows: int, width: int, dtype: torch.dtype = torch.float64) -> Quadratic:
    """A layer of gaussian weights whose inputs have twice as many tokens as channels: channels have sizes from 1 to 1/10, and
    there are a few directions in which all move together."""
    generator = torch.Generator(place.device).manual_seed(width)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, device=place.device)

    together = max(1, width // 16)
    inputs = normal(2 * width, width) * torch.logspace(0, -1, width, device=place.device)
    inputs = (inputs + normal(2 * width, together) @ normal(together, width) / together).to(torch.float64)
    gram = (inputs.T @ inputs).to(dtype)
    return Quadratic(place.array(gram), place.array(normal(rows, width).to(dtype)))
