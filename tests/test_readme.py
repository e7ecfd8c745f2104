"""The README's Python runs as printed, and its map names what is there."""

import re
import sys
from pathlib import Path

import pytest
from tiny import tiny_model, tiny_tokenizer

import gramian.adapters
from gramian.proofs.ledger import CLAIMS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda text: text.splitlines()[0])
def test_snippets_run(snippet, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))  # where one snippet is a module that another imports
    monkeypatch.delitem(sys.modules, "mymethod", raising=False)
    (tmp_path / "mymethod.py").write_text(next(text for text in SNIPPETS if text.startswith("# mymethod.py")))
    monkeypatch.setattr(gramian.adapters, "load", lambda _: (tiny_model("llama"), tiny_tokenizer()), raising=False)
    exec(compile(snippet.replace("samples=32, length=512", "samples=4, length=32"), "README.md", "exec"), {})


def test_the_map_is_true():
    listed = set(re.findall(r"\b[a-z0-9_]+\.py\b", README.split("## Map")[1]))
    files = {file.name for folder in ("solvers", "adapters", "proofs") for file in (ROOT / folder).rglob("*.py")}
    assert {name for name in files if not name.startswith(("_", "test_"))} <= listed
    assert listed <= files | {file.name for folder in ("tests", "benchmarks") for file in (ROOT / folder).rglob("*.py")}


def test_the_table_of_verdicts_is_that_of_the_ledger():
    rows = re.findall(r"^\| (\w+) \| (.*) \| (.*) \| \[(\w+\.py)\]\(proofs/(\w+\.py)\) \|$", README, re.MULTILINE)
    assert [row[:3] for row in rows] == [(claim.id, claim.source, claim.verdict.value) for claim in CLAIMS.values()]
    for name, *_, shown, file in rows:
        assert shown == file and re.search(rf'Claim\(\s*"{name}",', (ROOT / "proofs" / file).read_text(encoding="utf-8"))
    for verdict, words in (("holds", "hold as printed"), ("holds under hypotheses", "hold\nunder"), ("refuted", "are refuted")):
        assert f"{sum(row[2] == verdict for row in rows)} {words}" in README
