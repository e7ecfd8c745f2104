"""The Python of the solvers' README runs as printed."""

import re
from pathlib import Path

import pytest

README = (Path(__file__).parents[2] / "solvers" / "README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("snippet", SNIPPETS, ids=["regression", "term", "pattern"])
def test_snippets_run(snippet):
    exec(compile(snippet, "README.md", "exec"), {})
