"""The short programs of `benchmarks/examples` run as they are, and check themselves what they promise."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks" / "examples"
EXAMPLES = sorted(FOLDER.glob("*.py"))


def test_there_are_five():
    assert len(EXAMPLES) == 5


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs(example, tmp_path):
    alone = os.environ | {"OMP_NUM_THREADS": "1"}  # the programs are small
    done = subprocess.run([sys.executable, str(example)], cwd=tmp_path, env=alone, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert not list(tmp_path.glob("[!.]*"))  # nothing is left behind but what hypothesis remembers


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short_and_checks_itself(example):
    text = example.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 40
    assert "assert " in text or "raise SystemExit" in text
