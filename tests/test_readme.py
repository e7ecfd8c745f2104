"""The README's Python runs as printed, and its map names what is there."""

import re
from pathlib import Path

import pytest
from tiny import tiny_model, tiny_tokenizer

import gramian.adapters

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda text: text.splitlines()[0])
def test_snippets_run(snippet, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(gramian.adapters, "load_model", lambda _: (tiny_model("llama"), tiny_tokenizer()), raising=False)
    exec(compile(snippet.replace("samples=32, length=512", "samples=4, length=32"), "README.md", "exec"), {})


def test_the_map_is_true():
    listed = set(re.findall(r"\b[a-z0-9_]+\.py\b", README.split("## Map")[1]))
    folders = [ROOT / folder for folder in ("solvers", "adapters", "proofs")]
    present = {file.name for folder in folders for file in folder.glob("[!_]*.py") if not file.name.startswith("test_")}
    assert present <= listed
    elsewhere = {file.name for folder in ("tests", "benchmarks") for file in (ROOT / folder).glob("*.py")}
    assert listed <= present | elsewhere
