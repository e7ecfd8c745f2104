"""What is refused at once: before torch and transformers, which take seconds, are imported."""

import subprocess
import sys

import pytest

LATE = ("torch", "transformers", "tqdm", "hypothesis")  # scipy is not: settings are checked by a try of the method


def imports(said: str) -> set[str]:
    """The modules that `python -X importtime` names."""
    return {line.rpartition("|")[2].strip() for line in said.splitlines() if line.startswith("import time:")}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["prune", "missing/model/here", "--out", "sparse"], 1, "no model 'missing/model/here'"),
        (["prune", "org/model", "--out", "taken"], 1, "taken exists and is not empty"),
        (["prune", "org/model", "--out", "sparse", "--method", "magic"], 2, "no method 'magic'"),
        (["prune", "org/model", "--out", "sparse", "--sparsity", "2"], 2, "'2' is not a sparsity"),
        (["perplexity", "org/model", "--text", "missing.txt"], 1, "no text file 'missing.txt'"),
        (["capture", "./missing", "--include", ".", "--out", "problems"], 1, "no model './missing'"),
        (["solve", "missing"], 1, "no problem file 'missing'"),
        (["solve", "other", "--out", "taken"], 1, "taken exists and is not empty"),
        (["solve", "taken/file"], 1, "not a readable safetensors file"),
        (["solve", "taken/file", "--method", "wanda", "magic"], 2, "no method 'magic'; there are fistapruner"),
        (["solve", "taken/file", "--json", "missing/rows.json"], 1, "missing/rows.json cannot be written"),
        (["export", "org/model", "--format", "gguf", "--out", "folder"], 1, "folder does not end with .gguf"),
        (["export", "org/model", "--format", "onnx", "--out", "old.onnx"], 1, "old.onnx exists"),
        (["export", "org/model", "--format", "onnx", "--out", "taken"], 1, "taken exists and is not empty"),
        (["export", "missing/model/here", "--format", "onnx", "--out", "new.onnx"], 1, "no model 'missing/model/here'"),
        (["export", "org/model", "--format", "onnx", "--out", "new", "--pad"], 2, "--pad is for --format gguf"),
        (["export", "org/model", "--format", "onnx", "--out", "new", "--dtype", "float16"], 2, "--dtype float16 is for"),
        (["export", "org/model", "--format", "gguf", "--out", "new.gguf", "--no-past"], 2, "--no-past is for --format onnx"),
        (["nonsense"], 2, "invalid choice"),
        ([], 2, "usage: gramian"),
    ],
)
def test_a_refusal_waits_for_no_heavy_import(arguments, code, message, tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("x")
    (tmp_path / "old.onnx").write_text("x")
    command = [sys.executable, "-X", "importtime", "-m", "gramian", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == code and message in done.stderr and done.stdout == ""
    seen = imports(done.stderr)
    assert "gramian.adapters.cli.main" in seen or "gramian.adapters.cli.parser" in seen  # so that an import would be seen
    assert not seen.intersection(LATE)
