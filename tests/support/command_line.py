"""The `gramian` command called in tests: a tiny model on disk, short texts, no network. Fixtures are imported by their
functions' names, which differ from those that tests ask for, so that no import is hidden by an argument."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest
from safetensors.torch import load_file
from tiny import tiny_model, tiny_tokenizer

from gramian.adapters import save
from gramian.adapters.cli.main import main
from gramian.adapters.data import sources, texts

TEXT = " ".join(map(str, range(3000)))  # no two windows are alike
FAST = ["--samples", "4", "--length", "32", "--heldout", "2"]
OPERATORS = re.compile(r"layers\.\d+\.(self_attn|mlp)\..*_proj\.weight")


@pytest.fixture(name="no_network", autouse=True)
def no_network_fixture(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError(f"network access: {arguments}")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(name="short_builtin_text", autouse=True)
def short_builtin_text_fixture(monkeypatch):
    def builtin_text(part="calibration"):
        return TEXT if part == "calibration" else " ".join(map(str, range(3000, 4000)))

    monkeypatch.setattr(sources, "builtin_text", builtin_text)
    monkeypatch.setattr(texts, "builtin_text", builtin_text)


@pytest.fixture(name="model", scope="session")
def model_fixture(tmp_path_factory) -> Path:
    return save(tiny_model("llama"), tiny_tokenizer(), tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture(name="text")
def text_fixture(tmp_path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


def call(*arguments) -> int:
    """Exit code of a command line."""
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)


def failure(capsys, *arguments) -> str:
    """The one line of a call that must fail with exit code 1."""
    assert call(*arguments) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("gramian: error: ")]
    assert len(lines) == 1
    return lines[0]


def zeros(folder: Path) -> dict[str, float]:
    return {
        name: float((weight == 0).double().mean())
        for name, weight in load_file(folder / "model.safetensors").items()
        if OPERATORS.search(name)
    }
