"""Claims are checked without torch and transformers, whether these are installed or not."""

from __future__ import annotations

import subprocess
import sys

import pytest

ABSENT = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers", "safetensors"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
"""
CLAIMS = """
import sys
from gramian.proofs import laws
from gramian.proofs.ledger import verify_all

done = verify_all(["N15b", "X1", "G11", "T5", "F2"], examples=5, progress=False)
print(len(done.outcomes), done.failed, {"torch", "transformers", "gramian.adapters"} & set(sys.modules))
"""
LAWS = """
from gramian.proofs import laws
from gramian.proofs.kit.backends import backends
from gramian.solvers import magnitude

laws.check_method(magnitude, examples=2)
print(backends()[0], "torch" in map(str, backends()))
"""
COMMAND = """
from gramian.adapters.cli.main import main

main(["verify", "--claims", "X1", "--examples", "5"])
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


@pytest.mark.parametrize("before", ["", ABSENT], ids=["installed", "absent"])
def test_claims(before: str):
    done = run(before + CLAIMS)
    assert done.stdout.strip() == "5 () set()", done.stderr


def test_the_command():
    done = run(ABSENT + COMMAND)
    assert "1 claims (1 holds), 0 not as stated here" in done.stdout, done.stderr


def test_a_method_is_held_to_the_laws():
    """The array libraries that are left are those that are installed."""
    done = run(ABSENT + LAWS)
    assert done.stdout.strip() == "numpy False", done.stderr
