"""What is refused at once: before torch and transformers, which take seconds, are imported."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gramian.adapters.models.families import FAMILIES
from gramian.adapters.models.model_types import check_model_type
from gramian.adapters.models.stacks import STACKS

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
        (["prune", "gemma2", "--out", "small", "--method", "numerical"], 1, "no family row for model type 'gemma2'"),
        (["prune", "gemma2", "--out", "small", "--method", "numerical", "--memory", "stream"], 1, "model type 'gemma2'"),
        (["solve", "missing"], 1, "no problem file 'missing'"),
        (["solve", "other", "--out", "taken"], 1, "taken exists and is not empty"),
        (["solve", "taken/file"], 1, "not a readable safetensors file"),
        (["solve", "taken/file", "--method", "wanda", "magic"], 2, "no method 'magic'; there are fistapruner"),
        (["solve", "taken/file", "--json", "missing/rows.json"], 1, "missing/rows.json cannot be written"),
        (["nonsense"], 2, "invalid choice"),
        ([], 2, "usage: gramian"),
    ],
)
def test_a_refusal_waits_for_no_heavy_import(arguments, code, message, tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("x")
    (tmp_path / "gemma2").mkdir()
    (tmp_path / "gemma2" / "config.json").write_text(json.dumps({"model_type": "gemma2"}))
    (tmp_path / "gemma2" / "model.safetensors").touch()
    command = [sys.executable, "-X", "importtime", "-m", "gramian", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == code and message in done.stderr and done.stdout == ""
    seen = imports(done.stderr)
    assert "gramian.adapters.cli.main" in seen or "gramian.adapters.cli.parser" in seen  # so that an import would be seen
    assert not seen.intersection(LATE)


def test_model_types_are_known_without_torch(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "gemma2"}')
    code = f"from gramian.adapters.models.model_types import check_model_type; check_model_type({str(tmp_path)!r}, True)"
    done = subprocess.run([sys.executable, "-X", "importtime", "-c", code], capture_output=True, text=True, timeout=120)
    assert "no family row for model type 'gemma2'" in done.stderr
    seen = imports(done.stderr)
    assert "gramian.adapters.models.stacks" in seen and not seen.intersection(LATE)


def test_model_types_of_both_tables(tmp_path):
    def check(document: object, units: bool) -> None:
        (tmp_path / "config.json").write_text(json.dumps(document))
        check_model_type(tmp_path, units)

    for model_type in FAMILIES:
        for units in (False, True):
            check({"model_type": model_type}, units)
    for model_type in STACKS:
        check({"model_type": model_type}, True)
    for model_type in ("mamba", *STACKS):  # weights need no row
        check({"model_type": model_type}, False)
    with pytest.raises(ValueError, match="'mamba'; supported: gemma3_text, gpt2"):
        check({"model_type": "mamba"}, True)


def test_what_states_no_model_type_is_not_judged(tmp_path):
    check_model_type("org/model")
    check_model_type(tmp_path)
    for text in ("{", "[]", "{}", '{"model_type": 3}'):
        (tmp_path / "config.json").write_text(text)
        check_model_type(tmp_path)
    Path(tmp_path / "model.gguf").touch()
    check_model_type(tmp_path / "model.gguf")
