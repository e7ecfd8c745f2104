"""Fixtures: `xp`, with which every solver test runs on every array backend that is present, and what tests of models share.

Where there is a GPU, `pytest -m gpu` runs what runs on it: the solver tests, on cupy and on torch."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings
from threadpoolctl import threadpool_limits

from gramian.proofs.kit.backends import Backend, backends

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


@pytest.fixture(
    scope="session",
    params=[pytest.param(backend, marks=[pytest.mark.gpu] if backend.gpu else []) for backend in backends()],
    ids=lambda backend: backend.name,
)
def xp(request: pytest.FixtureRequest) -> Backend:
    return request.param


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of 3, 3 and 1 windows, and of 3 and 2 held out."""
    from tiny import LENGTH  # here and below: tests of solvers need not wait for transformers

    from gramian.adapters.run import forward as walk

    monkeypatch.setattr(walk, "TOKENS_PER_BATCH", 3 * LENGTH)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise AssertionError(f"network access: {arguments}")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    from tiny import tiny_model, tiny_tokenizer

    from gramian.adapters.models.saving import save

    return save(tiny_model("llama"), tiny_tokenizer(), tmp_path / "llama")
