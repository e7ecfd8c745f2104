"""Texts in pieces: read until there are enough tokens, and no more."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from tiny import tiny_tokenizer

from gramian.adapters.data import sources, windows
from gramian.adapters.data.sources import calibration
from gramian.adapters.data.windows import file_windows, pieces_of, text_windows, token_ids

TOKENIZER = tiny_tokenizer()
LINES = "".join(f"line {number}\n" for number in range(4000))


def small_pieces(monkeypatch, size: int) -> None:
    monkeypatch.setattr(windows, "WHOLE", 0)
    monkeypatch.setattr(windows, "PIECE", size)


@pytest.mark.parametrize("size", [1, 7, 100, 10**6])
@pytest.mark.parametrize("text", ["", "a", LINES[:500], "x" * 50, "\n\n\n", "é\r\nü"])
def test_pieces_are_the_text(text, size, monkeypatch):
    small_pieces(monkeypatch, size)
    pieces = list(pieces_of(io.StringIO(text), len(text)))
    assert "".join(pieces) == text and all(0 < len(piece) <= 2 * size for piece in pieces)
    if size == 7 and text == LINES[:500]:
        assert all(piece.endswith("\n") for piece in pieces[:-1]) and len(pieces) > 10


def test_a_byte_tokeniser_does_not_see_the_pieces(monkeypatch, tmp_path):
    whole = text_windows(LINES, TOKENIZER, 16)
    (tmp_path / "text.txt").write_text(LINES)
    small_pieces(monkeypatch, 300)
    assert text_windows(LINES, TOKENIZER, 16).equal(whole)
    assert file_windows(tmp_path / "text.txt", TOKENIZER, 16).equal(whole)


def test_a_text_of_usual_length_is_taken_at_once(tmp_path):
    """A tokeniser that looks across lines sees all of it."""
    text = LINES[:20_000] + "é" * 100
    assert list(pieces_of(io.StringIO(text), len(text))) == [text]
    assert list(pieces_of(io.StringIO(text), len(text.encode()))) == [text]
    assert len(list(pieces_of(io.StringIO(text), 10**9))) == 1


def test_no_more_is_read_than_is_enough(monkeypatch):
    """The stream ends with an error, which is not met."""
    small_pieces(monkeypatch, 100)

    def endless():
        yield from pieces_of(io.StringIO(LINES[:1000]), 1000)
        raise AssertionError("it was read on")

    assert 500 <= len(token_ids(endless(), TOKENIZER, 500)) < 700


def test_a_large_file_is_read_until_there_are_many_times_enough(tmp_path, monkeypatch):
    """Windows are drawn from its beginning, and a smaller file is read whole."""
    path = tmp_path / "text.txt"
    path.write_text(LINES + "\0" * 1000)
    small_pieces(monkeypatch, 100)
    monkeypatch.setattr(sources, "POOL", 2000)
    drawn = calibration(str(path), TOKENIZER, samples=8, length=4).windows[:, 1:]
    beginning = text_windows(LINES[:2500], TOKENIZER, 4)[:, 1:].tolist()
    assert all(row in beginning for row in drawn.tolist()) and not (drawn == 0).any()
    assert len(drawn) == 8
    several = calibration(str(path), TOKENIZER, samples=200, length=4).windows  # 16 times 800 tokens
    assert several.shape == (200, 5)
    monkeypatch.undo()
    assert calibration(str(path), TOKENIZER, samples=8, length=4).windows.equal(
        (rows := text_windows(path.read_text(), TOKENIZER, 4))[
            torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:8].sort().values
        ]
    )


@pytest.mark.parametrize("place", [0, 5, 70_000])
def test_the_byte_that_is_not_text(place, tmp_path, monkeypatch):
    """Its place is that in the file, wherever the pieces begin."""
    small_pieces(monkeypatch, 100)
    path = Path(tmp_path / "text.txt")
    path.write_bytes(b"a" * place + b"\xff" + b"b" * 100)
    with pytest.raises(ValueError, match=rf"text\.txt is not UTF-8 text \(byte {place}\)"):
        file_windows(path, TOKENIZER, 4)
