"""Signals end a command with one line that says how it goes on and with their own exit code, wherever they strike, and the work
goes on from there to the same bytes."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from forked_runs import digests, ended, forked
from tiny import tiny_model, tiny_tokenizer

from gramian.__main__ import command
from gramian.adapters import save
from gramian.adapters.run.journal import journal_of

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
ARGUMENTS = ["prune", "source", "--calibration", "text.txt", "--samples", "4", "--length", "24", "--heldout", "2"]
RUNS = {
    "weights": [*ARGUMENTS, "--method", "wanda", "--problems", "problems"],
    "streamed": [*ARGUMENTS, "--method", "wanda", "--memory", "stream"],
    "sampled": [*ARGUMENTS, "--method", "flap", "--calibration", "self", "--no-perplexity"],
}


@pytest.fixture
def work(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save(tiny_model("llama"), tiny_tokenizer(), "source")
    Path("text.txt").write_text(" ".join(map(str, range(2000))))
    return tmp_path


def as_command(arguments: list[str]) -> int:
    sys.argv = ["gramian", *arguments]
    return command()


def at_call(number: int, strike: signal.Signals):
    """Send the signal at a call of a Python function, whichever it is; how many there were is then in the file `calls`."""

    def changed() -> None:
        count = 0

        def profile(frame, event, argument) -> None:
            nonlocal count
            if event != "call":
                return
            count += 1
            if count == number:
                sys.setprofile(None)
                os.kill(os.getpid(), strike)

        sys.setprofile(profile)
        leave = os._exit

        def left(code: int) -> None:
            sys.setprofile(None)
            Path("calls").write_text(str(count))
            leave(code)

        os._exit = left  # type: ignore[assignment]

    return changed


def beside() -> set[str]:
    return {path.name for path in Path().iterdir()} - {"source", "text.txt", "log", "calls", "expected"}


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("strikes", [3, pytest.param(40, marks=pytest.mark.slow)])
def test_wherever_they_strike(name, strikes, work):
    arguments = RUNS[name]
    assert ended(forked([*arguments, "--out", "out"], at_call(0, signal.SIGINT), run=as_command)) == 0, Path("log").read_text()
    calls = int(Path("calls").read_text())
    Path("out").rename("expected")
    expected, problems = digests(Path("expected")), digests(Path("problems")) if "--problems" in arguments else None
    generator, before = random.Random(name), 0
    for number in range(strikes):
        for place in beside():
            shutil.rmtree(place)
        strike = list(CODES)[number % 3]
        # the parser, anywhere, and near the end, where files appear
        low, high = [(0, 0.01), (0, 1), (0.9, 1)][number % 3]
        at = 1 + int(calls * generator.uniform(low, high))
        code = ended(forked([*arguments, "--out", "out"], at_call(at, strike), run=as_command))
        said = Path("log").read_text()
        assert code == CODES[strike], (at, code, said)
        assert "Traceback" not in said and "Exception ignored" not in said, said
        (line,) = [line for line in said.splitlines() if line.startswith("gramian: ")]
        assert said.splitlines()[-1] == line
        assert beside() <= {"out", "out.journal", "problems"}, "drafts are left"
        assert not Path("out").exists() or digests(Path("out")) == expected
        assert not Path("problems").exists() or digests(Path("problems")) == problems
        if journal_of(Path("out")).exists() and list(journal_of(Path("out")).glob("weights-*")):
            assert "the same command with --resume goes on from there" in line
            before += 1
        again = [] if "the same command begins again" in line else ["--resume"]
        assert ended(forked([*arguments, "--out", "out", *again], run=as_command)) == 0, Path("log").read_text()
        assert digests(Path("out")) == expected
        assert problems is None or digests(Path("problems")) == problems
        assert beside() <= {"out", "problems"}
    assert strikes < 10 or before > 0 or name == "sampled"


SAYING = """
import runpy, signal, sys
own = signal.signal
own(signal.SIGINT, signal.default_int_handler)  # which is ignored in the background of a shell
own(signal.SIGHUP, signal.SIG_DFL)  # which nohup ignores
def saying(number, handler):
    found = own(number, handler)
    if number == signal.SIGHUP:  # the last that it takes
        signal.signal = own
        print("ready", flush=True)
    return found
signal.signal = saying
sys.argv[0] = "gramian"
runpy.run_module("gramian", run_name="__main__")
"""


@pytest.mark.parametrize("strikes", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_a_process_that_is_only_starting(strikes, work):
    """From the moment on at which it takes signals, whatever it imports then."""

    def started() -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", SAYING, *RUNS["weights"], "--out", "out"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        return process

    generator, longest = random.Random(0), 0.5
    if strikes > 1:  # at any moment of the first half of a run
        process, began = started(), time.perf_counter()
        process.communicate()
        longest = (time.perf_counter() - began) / 2
        shutil.rmtree("out")
        shutil.rmtree("problems")
    for number in range(strikes):
        strike, process = list(CODES)[number % 3], started()
        time.sleep(generator.uniform(0, longest))
        process.send_signal(strike)
        said = process.communicate()[1]
        assert process.returncode == CODES[strike] and "Traceback" not in said, said
        assert said.splitlines()[-1].startswith("gramian: ")


def test_a_signal_that_was_ignored_is_ignored(work):
    """As `nohup` has it."""

    def changed() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        at_call(2000, signal.SIGHUP)()

    assert ended(forked([*RUNS["weights"], "--out", "out"], changed, run=as_command)) == 0
    assert Path("out").is_dir()
