import sys
import types

import pytest
import torch
from safetensors.torch import save_file
from tiny import BEGIN, VOCABULARY, tiny_model, tiny_tokenizer

from gramian.adapters.data.sources import builtin_text, calibration
from gramian.adapters.data.texts import read_texts
from gramian.adapters.data.tokens import Tokens
from gramian.adapters.data.windows import text_windows

TOKENIZER = tiny_tokenizer()


def test_windows_are_the_text_in_order():
    text = "the quick brown fox — jumps"
    windows = text_windows(text, TOKENIZER, 7)
    whole = TOKENIZER(text, add_special_tokens=False).input_ids
    assert windows.shape == (len(whole) // 7, 8) and windows.dtype == torch.int64
    assert (windows[:, 0] == BEGIN).all()
    assert windows[:, 1:].flatten().tolist() == whole[: 7 * len(windows)]
    assert TOKENIZER.decode(windows[0, 1:]) == text[:7]


def test_no_begin_token_no_column():
    tokenizer = tiny_tokenizer()
    tokenizer.bos_token = None
    assert text_windows("abcdefg", tokenizer, 3).shape == (2, 3)


def test_long_text_does_not_warn(caplog, capsys):
    text_windows("a" * 1000, tiny_tokenizer(), 10)
    assert "longer than" not in caplog.text + capsys.readouterr().err


@pytest.mark.parametrize(("text", "message"), [("", "empty"), ("abc", "3 tokens, one window needs 4")])
def test_too_little_text(text, message):
    with pytest.raises(ValueError, match=message):
        text_windows(text, TOKENIZER, 4)


def test_builtin_parts_are_english_and_disjoint():
    calibration, heldout = builtin_text(), builtin_text("heldout")
    assert len(calibration) > 150_000 and len(heldout) > 30_000
    paragraphs = calibration.split("\n\n")
    assert not set(heldout.split("\n\n")) & set(paragraphs) and len(set(paragraphs)) == len(paragraphs)
    assert " the " in heldout
    with pytest.raises(ValueError, match="'test'"):
        builtin_text("test")  # type: ignore[arg-type]


def test_seed_picks_windows_in_text_order():
    first, again, other = (calibration("builtin", TOKENIZER, samples=5, length=50, seed=seed) for seed in (0, 0, 1))
    assert first.windows.equal(again.windows) and first.digest == again.digest
    assert first.digest != other.digest and (first.seed, other.seed) == (0, 1)
    everything = text_windows(builtin_text(), TOKENIZER, 50)
    places = [int((everything == window).all(dim=1).nonzero()[0]) for window in first.windows]
    assert places == sorted(set(places)) and len(places) == 5


def test_text_file(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("naïve " * 10, encoding="utf-8")
    tokens = calibration(str(path), TOKENIZER, samples=7, length=10, seed=3, vocabulary=VOCABULARY)
    assert tokens.windows.shape == (7, 11) and tokens.seed is None and tokens.source == str(path)
    with pytest.raises(ValueError, match=r"holds 7 windows of 11 tokens.*8 requested: ask for fewer"):
        calibration(str(path), TOKENIZER, samples=8, length=10, seed=3)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="not UTF-8"):
        calibration(str(path), TOKENIZER, samples=1, length=1, seed=0)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"text\.txt: the text is empty"):
        calibration(str(path), TOKENIZER, samples=1, length=1, seed=0)


@pytest.mark.parametrize("source", ["missing.txt", "missing.safetensors", "wikitext", ""])
def test_missing_source(source):
    with pytest.raises(FileNotFoundError, match=r"expected builtin, FILE.txt"):
        calibration(source, TOKENIZER, samples=1, length=1, seed=0)


def test_text_needs_a_tokenizer():
    with pytest.raises(ValueError, match="no tokenizer"):
        calibration("builtin", None, samples=1, length=1, seed=0)


def test_token_file(tmp_path):
    path = tmp_path / "tokens.safetensors"
    ids = torch.arange(12, dtype=torch.int32).view(3, 4)
    save_file({"tokens": ids}, path)
    tokens = calibration(str(path), None, samples=3, length=999, seed=0, vocabulary=12)
    assert tokens.windows.equal(ids.long()) and tokens.windows.dtype == torch.int64
    assert tokens.digest == Tokens(ids.long(), "elsewhere", 1).digest
    with pytest.raises(ValueError, match="token 11, the model's vocabulary has 11"):
        calibration(str(path), None, samples=3, length=4, seed=0, vocabulary=11)
    save_file({"tokens": ids - 2}, path)
    with pytest.raises(ValueError, match="negative token -2"):
        calibration(str(path), None, samples=3, length=4, seed=0)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"ids": torch.zeros(2, 2, dtype=torch.int64)}, r"\['ids'\], expected one named 'tokens'"),
        ({"tokens": torch.zeros(2, 2)}, "float32"),
        ({"tokens": torch.zeros(4, dtype=torch.int64)}, r"shape \(4,\)"),
        ({"tokens": torch.zeros(0, 4, dtype=torch.int64)}, "not empty"),
    ],
)
def test_bad_token_file(tmp_path, tensors, message):
    save_file(tensors, tmp_path / "t.safetensors")
    with pytest.raises(ValueError, match=message):
        calibration(str(tmp_path / "t.safetensors"), None, samples=1, length=2, seed=0)


def test_damaged_token_file(tmp_path):
    (tmp_path / "t.safetensors").write_bytes(b"not safetensors at all")
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        calibration(str(tmp_path / "t.safetensors"), None, samples=1, length=2, seed=0)


@pytest.mark.parametrize("option", [{"samples": 0}, {"length": 0}])
def test_bad_counts(option):
    with pytest.raises(ValueError, match="at least 1"):
        calibration("builtin", TOKENIZER, **{"samples": 1, "length": 1, "seed": 0} | option)


def fake_datasets(monkeypatch, rows) -> list:
    calls = []

    def load_dataset(name, config, *, split, streaming):
        calls.append((name, config, split, streaming))
        return iter(rows)

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    return calls


@pytest.mark.parametrize(
    ("source", "call"),
    [
        ("hf:org/name", ("org/name", None, "train", True)),
        ("hf:org/name:small", ("org/name", "small", "train", True)),
        ("hf:org/name:small:test", ("org/name", "small", "test", True)),
        ("hf:org/name::test", ("org/name", None, "test", True)),
    ],
)
def test_dataset(monkeypatch, source, call):
    calls = fake_datasets(monkeypatch, ({"text": str(i) * 8} for i in range(100)))
    tokens = calibration(source, TOKENIZER, samples=2, length=15, seed=0)
    assert calls == [call]
    assert TOKENIZER.decode(tokens.windows[:, 1:].flatten()) == "00000000\n\n11111111\n\n22222222\n\n"


def test_bad_datasets(monkeypatch):
    fake_datasets(monkeypatch, [{"body": "x"}])
    with pytest.raises(ValueError, match=r"hf:name.*\['body'\]"):
        calibration("hf:name", TOKENIZER, samples=1, length=1, seed=0)
    fake_datasets(monkeypatch, [{"text": "x"}])
    with pytest.raises(ValueError, match="3 tokens, one window needs 9"):
        calibration("hf:name", TOKENIZER, samples=1, length=9, seed=0)
    with pytest.raises(ValueError, match="malformed"):
        calibration("hf:", TOKENIZER, samples=1, length=9, seed=0)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match=r"gramian\[datasets\]"):
        calibration("hf:name", TOKENIZER, samples=1, length=9, seed=0)


def test_tokens_are_one_line():
    tokens = Tokens(torch.arange(12).reshape(4, 3), "text.txt")
    assert repr(tokens) == f"Tokens(4 windows of 3 tokens, text.txt, sha256 {tokens.digest})"
    assert "shape (12,)" in repr(Tokens(torch.arange(12), "text.txt"))


def test_what_a_run_reads_is_logged_and_not_printed(tmp_path, capsys, caplog):
    text = tmp_path / "text.txt"
    text.write_text("the quick brown fox jumps over the lazy dog " * 20)
    with caplog.at_level("INFO", logger="gramian"):
        read = read_texts(tiny_model("llama"), TOKENIZER, str(text), samples=3, length=8, seed=0, heldout=2)
    assert caplog.messages == [f"{text}: 3 windows to calibrate, 2 held out"]
    assert capsys.readouterr().out == "" and len(read.calibration.windows) == 3
