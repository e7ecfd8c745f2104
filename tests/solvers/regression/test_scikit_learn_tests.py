"""scikit-learn's own tests of Lasso and elastic net, run against ours: a sample, and, slowly, all that passed once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sklearn")

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"
NAMES = ("lasso_zero", "enet_toy", "lasso_toy", "enet_multitarget", "uniform_targets", "check_input_false")
SAMPLE = " or ".join(f"(test_{name} and not path)" for name in NAMES)


def outcome(out: Path, only: str = "") -> dict[str, Any]:
    command = [sys.executable, str(BENCHMARKS / "sklearn_tests.py"), "--only", only, "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(json.loads(out.read_text(encoding="utf-8"))["tests"])


def test_a_sample_passes_and_what_cannot_pass_is_seen(tmp_path):
    tests = outcome(tmp_path / "found.json", SAMPLE)
    assert all(row["ours"] == row["cases"] > 0 for row in tests.values())
    failed = {name for name, row in tests.items() if row["passed"] < row["ours"]}
    assert failed == {"test_check_input_false"} and "first error" in tests["test_check_input_false"]
    assert len(tests) == 6


@pytest.mark.slow
def test_nothing_fails_that_passed(tmp_path):
    before = json.loads((BENCHMARKS / "results" / "sklearn_tests.json").read_text(encoding="utf-8"))["tests"]
    after = outcome(tmp_path / "found.json")
    assert {name: after[name]["passed"] for name in before if after[name]["passed"] < before[name]["passed"]} == {}
