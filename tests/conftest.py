"""Fixtures: `xp`, with which every solver test runs on every array backend that is present, and what tests of models share."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import array_api_strict
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from threadpoolctl import threadpool_limits

threadpool_limits(1)  # small matrices: threads that wait for each other would cost more than they bring
torch.set_num_threads(1)

settings.register_profile(
    "gramian",
    deadline=None,
    derandomize=True,
    print_blob=True,
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("gramian")


@dataclass(frozen=True)
class Backend:
    """An array library: `xp.asarray` takes numpy arrays there, `xp.numpy` takes them back."""

    name: str
    module: Any

    def asarray(self, array: Any, dtype: str | None = None) -> Any:
        array = np.array(array, dtype=dtype)  # a copy: no test may see another's arrays
        return torch.from_numpy(array) if self.name == "torch" else self.module.asarray(array)

    def numpy(self, array: Any) -> np.ndarray:
        return array.get() if self.name == "cupy" else np.asarray(array)

    def dtype(self, name: str) -> Any:
        return getattr(self.module, name)

    def __repr__(self) -> str:
        return self.name


def backends() -> list[Backend]:
    found = [Backend("numpy", np), Backend("torch", torch), Backend("strict", array_api_strict)]
    try:
        import cupy

        if cupy.cuda.runtime.getDeviceCount() > 0:
            found.append(Backend("cupy", cupy))
    except Exception:  # absent, or present without a driver: both mean no cupy here
        pass
    return found


@pytest.fixture(scope="session", params=backends(), ids=lambda backend: backend.name)
def xp(request: pytest.FixtureRequest) -> Backend:
    return request.param


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of 3, 3 and 1 windows, and of 3 and 2 held out."""
    from tiny import LENGTH  # here and below: tests of solvers need not wait for transformers

    from gramian.adapters import walk

    monkeypatch.setattr(walk, "TOKENS_PER_BATCH", 3 * LENGTH)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise AssertionError(f"network access: {arguments}")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    from tiny import tiny_model, tiny_tokenizer

    from gramian.adapters.checkpoint import save_model

    return save_model(tiny_model("llama"), tiny_tokenizer(), tmp_path / "llama", report={"method": "none"})
