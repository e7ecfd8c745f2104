"""`gramian verify`: the ledger on the command line, and what it says when something is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from types import MappingProxyType

import pytest

from gramian import extras
from gramian.adapters.cli.main import main
from gramian.proofs import ledger
from gramian.proofs.kit.claims import MUTANT_EXAMPLES, Claim, Counterexample, Property, Verdict, verify
from gramian.proofs.ledger import CLAIMS, verify_all


def call(*arguments: object) -> int:
    """Exit code of a command line."""
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)


def false_counterexample() -> None:
    assert 1 + 1 == 3, "they are two"


def crash() -> None:
    raise ZeroDivisionError("oh")


@pytest.fixture
def broken(monkeypatch):
    """The ledger with one claim that is not as it says."""
    examples = Counterexample("a sum", false_counterexample), Counterexample("a crash", crash)
    wrong = replace(CLAIMS["F7"], counterexamples=examples)
    monkeypatch.setattr(ledger, "CLAIMS", MappingProxyType({**CLAIMS, "F7": wrong}))


def test_every_claim_has_an_id_of_its_own():
    assert list(CLAIMS) == [claim.id for claim in CLAIMS.values()] and len(CLAIMS) >= 68
    assert {name[0] for name in CLAIMS} == set("ABCDEFGHINORSTX")


def test_claims_as_a_table_and_as_json(tmp_path, capsys):
    file = tmp_path / "claims.json"
    assert call("verify", "--claims", "X1", "N15b", "X1", "--examples", 10, "--json", file) == 0
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    assert lines[0].split() == ["claim", "verdict", "examples", "mutants", "s"]
    assert lines[2].startswith("X1 ") and lines[3].startswith("N15b") and lines[2].endswith("ok")
    assert lines[-1].startswith("2 claims (1 holds, 1 refuted), 0 not as stated here")
    found = json.loads(file.read_text())
    assert found["passed"] and found["examples"] == 10 and found["versions"]["gramian"]
    first, second = found["claims"]
    assert (first["id"], first["verdict"], first["examples"], first["failures"]) == ("X1", "holds", 10, [])
    assert first["caught"] == first["mutants"] == 3 and first["source"] and first["printed"]
    assert (second["id"], second["verdict"], second["examples"], second["mutants"]) == ("N15b", "refuted", 1, 0)
    assert second["corrected"]


def test_a_claim_that_fails_ends_with_one(broken, capsys, tmp_path):
    assert call("verify", "--claims", "X1", "F7", "--examples", 5, "--json", tmp_path / "claims.json") == 1
    message = capsys.readouterr()
    assert "FAILED" in message.out and "1 not as stated here" in message.out
    assert "F7: a sum: the counterexample does not refute the statement: they are two" in message.out
    assert "F7: a crash: the counterexample does not refute the statement: ZeroDivisionError: oh" in message.out
    assert message.err.splitlines()[-1] == "gramian: error: not as the ledger states: F7"
    assert not json.loads((tmp_path / "claims.json").read_text())["passed"]


def test_an_unknown_claim_is_bad_usage(capsys):
    assert call("verify", "--claims", "N15", "Q1", "Q2") == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("gramian verify: error: no claim Q1, Q2; there are N1, N3, ") and line.endswith(f", {[*CLAIMS][-1]}")
    with pytest.raises(ValueError, match="no claim Q1; there are N1"):
        verify_all(["Q1"])


@pytest.mark.parametrize("bad", ["0", "-3", "many"])
def test_examples_are_counted_from_one(bad, capsys):
    assert call("verify", "--examples", bad) == 2
    assert "is not a whole number of at least 1" in capsys.readouterr().err
    with pytest.raises(ValueError, match="at least 1"):
        verify_all(["X1"], examples=0)


def test_a_result_that_cannot_be_written_is_told_before_the_work(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(ledger, "verify", lambda *_: pytest.fail("it began"))
    assert call("verify", "--json", tmp_path / "none" / "claims.json") == 1
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize("package", ["hypothesis", "cvxpy"])
def test_the_extra_is_named(package, monkeypatch, capsys):
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == package else object())
    assert call("verify") == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line == f"gramian: error: gramian verify needs {package}: pip install 'gramian[proofs]'"


def test_help_waits_for_no_proofs():
    code = "import sys; from gramian.adapters.cli.main import main\n"
    code += "try: main(['verify', '--help'])\nfinally: print({'torch', 'hypothesis', 'gramian.proofs'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "set()" and done.stderr == ""


# -- how a claim is verified -------------------------------------------------------------------------------------------


def small(number: int, limit: int) -> None:
    assert number <= limit, f"{number} is above {limit}"


def claim_of(*properties: Property) -> Claim:
    return Claim("Z1", "nowhere", "numbers are small", Verdict.HOLDS, properties=properties)


def number_property(limit: int, mutant: int, **changes: object) -> Property:
    from hypothesis import strategies as st

    return replace(Property("small", st.integers(0, 100), small, limit, {"smaller": mutant}), **changes)


def test_a_mutant_gets_a_hundred_examples_however_few_are_asked_for():
    seen: list[tuple[int, int]] = []

    def watched(number: int, limit: int) -> None:
        seen.append((number, limit))

    outcome = verify(claim_of(number_property(100, 99, holds=watched)), examples=3)
    assert len([limit for _, limit in seen if limit == 100]) == outcome.examples == 3
    assert len([limit for _, limit in seen if limit == 99]) == MUTANT_EXAMPLES == 100
    assert outcome.failures == ("small: the mutant 'smaller' was not caught in 100 examples",) and outcome.caught == 0


def test_a_property_that_fails_shows_the_smallest_instance():
    outcome = verify(claim_of(number_property(40, 10)))
    assert outcome.caught == outcome.mutants == 1
    (failure,) = outcome.failures
    assert failure.startswith("small: 41 is above 40") and "instance=41" in failure


def test_an_exception_fails_one_claim_and_no_more():
    def broken(number: int, limit: int) -> None:
        if limit == 40:
            raise ZeroDivisionError("oh")
        assert number < limit

    (failure,) = verify(claim_of(number_property(40, 10, holds=broken))).failures
    assert failure.startswith("small: ZeroDivisionError: oh")
