"""Tokenisers that panic, never end, or take all memory are found out in a process of their own."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest
from tiny import tiny_tokenizer
from transformers import PreTrainedTokenizerFast

from gramian.adapters.data.sources import calibration
from gramian.adapters.models import tokenizer_trials
from gramian.adapters.models.tokenizer_trials import check_tokenizer, trial

DIGITS = "0 1 2 3 4 5 6 7 8 9 " * 20


@pytest.fixture(autouse=True)
def _short_limits(monkeypatch):
    monkeypatch.setattr(tokenizer_trials, "SECONDS", 2.0)
    monkeypatch.setattr(tokenizer_trials, "MEMORY", 2**30)


def changed(folder: Path, **parts) -> Path:
    """A tokeniser file with other parts."""
    tiny_tokenizer().save_pretrained(folder)
    file = folder / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | parts))
    return file


def replace(text: str, content: str, times: int) -> dict:
    step = {"type": "Replace", "pattern": {"String": text}, "content": content}
    return {"type": "Sequence", "normalizers": [step] * times}


def split(expression: str) -> dict:
    return {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False}


HARMFUL = {
    "it backtracks": {"pre_tokenizer": split("([0-9 ]+)+x")},
    "it takes all memory": {"normalizer": replace("0", "0" * 60, 6)},
}


@pytest.mark.parametrize("name", HARMFUL)
def test_a_text_that_its_rules_cannot_take(name, tmp_path):
    """The line names the tokeniser, comes in time, and this process has taken no memory for it."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(changed(tmp_path, **HARMFUL[name])))
    (tmp_path / "text.txt").write_text(DIGITS)
    started = time.monotonic()
    with pytest.raises(ValueError, match=r"text\.txt: the tokenizer.*(cannot tokenise|takes more than|ends the process)"):
        calibration(str(tmp_path / "text.txt"), tokenizer, samples=1, length=4)
    assert time.monotonic() - started < 20


def test_a_text_that_its_rules_take(tmp_path):
    """Many texts, one after the other, with the rules alone: no vocabulary is read."""
    with trial(tiny_tokenizer(), "it") as attempt:
        for text in ("", "ü" * 1000, DIGITS, "\ud800", "\0"):
            attempt(text)


def test_what_the_library_does_not_run_is_not_tried():
    with trial(object(), "it") as attempt:
        attempt(DIGITS)


def test_files(tmp_path, monkeypatch):
    check_tokenizer(tmp_path / "missing.json")
    check_tokenizer(changed(tmp_path))
    monkeypatch.setattr(tokenizer_trials, "tried", lambda *_: pytest.fail("it was tried again"))
    check_tokenizer(tmp_path / "tokenizer.json")


@pytest.mark.parametrize(
    "parts",
    [{"model": {"type": "Own"}}, {"pre_tokenizer": split("([a-zA-Z ]+)+[XYZ]")}, {"normalizer": replace("o", "o" * 60, 6)}],
)
def test_harmful_files_are_named(parts, tmp_path):
    file = changed(tmp_path, **parts)
    with pytest.raises(ValueError, match=str(file)) as caught:
        check_tokenizer(file)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=str(file)):  # and not taken for sound the next time
        check_tokenizer(file)


def test_no_process_is_left(tmp_path, monkeypatch):
    started: list[subprocess.Popen[bytes]] = []

    class Noted(subprocess.Popen):
        def __init__(self, *args, **kwargs) -> None:
            super().__init__(*args, **kwargs)
            started.append(self)

    monkeypatch.setattr(tokenizer_trials.subprocess, "Popen", Noted)
    for part in ("([0-9 ]+)+x", "[0-9]"):
        with pytest.raises(RuntimeError, match="mine"), trial(PreTrainedTokenizerFast(
            tokenizer_file=str(changed(tmp_path, pre_tokenizer=split(part)))
        ), "it"):  # fmt: skip
            raise RuntimeError("mine")
    assert len(started) == 2 and all(process.returncode is not None for process in started)
