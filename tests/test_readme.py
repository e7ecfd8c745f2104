"""The README's Python runs as printed, its commands are commands, and it stays short enough to be read in one breath."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny import tiny_model, tiny_tokenizer

import gramian
from gramian.adapters.cli.parser import command_line

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
COMMANDS = re.findall(r"^gramian .*$", README, re.MULTILINE)
LINKS = re.findall(r"\]\(([^)#]+)\)", README)


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda text: text.splitlines()[0])
def test_snippets_run(snippet, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))  # where one snippet is a module that another imports
    monkeypatch.delitem(sys.modules, "mymethod", raising=False)
    (tmp_path / "mymethod.py").write_text(next(text for text in SNIPPETS if text.startswith("# mymethod.py")))
    monkeypatch.setattr(gramian, "load", lambda _: (tiny_model("llama"), tiny_tokenizer()), raising=False)
    names: dict[str, Any] = {}
    exec(compile(snippet.replace("samples=32, length=512", "samples=4, length=32"), "README.md", "exec"), names)
    for test in [value for name, value in names.items() if name.startswith("test_")]:
        test()


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_parse(command):
    arguments = shlex.split(command, comments=True)[1:]
    assert command_line().parse_args(arguments).command == arguments[0]


def test_links_lead_somewhere():
    assert LINKS and [link for link in LINKS if not (ROOT / link).exists()] == []


def test_it_is_read_in_one_breath():
    assert len(README.splitlines()) <= 220
