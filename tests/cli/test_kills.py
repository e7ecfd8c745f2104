"""Runs that are killed at any moment go on with --resume, to the same bytes, and nothing that was finished is done again.

Every run is a forked process, which need not import anything, killed with SIGKILL after a part of the time that it takes."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from forked_runs import digests, ended, forked, records
from tiny import SHAPES, VOCABULARY, tiny_tokenizer
from transformers import AutoConfig, AutoModelForCausalLM

from gramian.adapters import save
from gramian.adapters.run.journal import Journal, journal_of

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
TEXT = ["--calibration", "text.txt"]
DOMAINS = ["--calibration", "text.txt=0.7", "--calibration", "other.txt=0.3"]
WINDOWS = ["--samples", "6", "--length", "32", "--heldout", "2"]
CORE = [each for option in ("block=8", "sweeps=1", "warm_start=sparsegpt", "save=wrapped") for each in ("--set", option)]
RUNS = {
    "weights": ["--method", "sparsegpt", "--target", "model"],
    "weights by two jobs": ["--method", "fistapruner", "--set", "max_lambdas=2", "--set", "inner_steps=5", "--jobs", "2"],
    "weights in three factors": ["--method", "armor", "--target", "own", "--sparsity", "2:4", *CORE],
    "units": ["--method", "numerical", "--ratio", "0.3", "--refit-producers"],
    "units with a bias": ["--method", "flap", "--calibrate-on", "pruned"],
    "weights, streamed": ["--method", "wanda", "--memory", "stream"],
    "units, streamed": ["--method", "numerical", "--memory", "stream", "--set", "score=box"],
    "weights, of two domains": ["--method", "l0", "--set", "steps=5"],
    "units, of two domains": ["--method", "numerical", "--ratio", "0.3", "--calibrate-on", "pruned"],
}


def counting(count: Path) -> Callable[[], object]:
    """Lets every record that a run writes be a line of `count`."""

    def changed() -> None:
        write: Callable[..., None] = Journal.write

        def counted(self, *record) -> None:
            write(self, *record)
            with count.open("a") as lines:
                lines.write("one\n")

        Journal.write = counted  # type: ignore[method-assign]

    return changed


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("kills", [3, pytest.param(34, marks=pytest.mark.slow)])
def test_a_killed_run_goes_on(name, kills, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shape = SHAPES["llama"] | {"num_hidden_layers": 4, "vocab_size": VOCABULARY}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **shape), dtype=torch.float32)
    save(model, tiny_tokenizer(), tmp_path / "source")
    Path("text.txt").write_text(" ".join(map(str, range(2000))))
    Path("other.txt").write_text(" ".join(str(7 * number) for number in range(2000)))
    texts = DOMAINS if name.endswith("of two domains") else TEXT
    arguments = ["prune", "source", *texts, *WINDOWS, *RUNS[name]]
    whole, started = Path("whole"), time.perf_counter()
    assert ended(forked([*arguments, "--out", "expected"], counting(whole))) == 0, Path("log").read_text()
    took, total = time.perf_counter() - started, len(whole.read_text().splitlines())
    expected, generator, resumed = digests(Path("expected")), random.Random(name), 0
    for number in range(kills):
        shutil.rmtree("out", ignore_errors=True)
        process = forked([*arguments, "--out", "out"])
        if number % 2:
            time.sleep(generator.uniform(0, took))
        else:  # once a part of the blocks is done
            least, patience = generator.randrange(total), time.perf_counter() + 5 * took
            while records(Path("out")) < least and time.perf_counter() < patience and not Path("out").exists():
                time.sleep(1e-3)
        os.kill(process, signal.SIGKILL)
        killed = ended(process) == -signal.SIGKILL
        found, finished, count = records(Path("out")), Path("out").exists(), Path("count")
        assert not finished or digests(Path("out")) == expected  # whole or not there
        count.write_text("")
        assert ended(forked([*arguments, "--out", "out", "--resume"], counting(count))) == 0, Path("log").read_text()
        assert digests(Path("out")) == expected
        assert len(count.read_text().splitlines()) == (0 if finished else total - found)
        assert not journal_of(Path("out")).exists()
        resumed += killed and 0 < found < total
    assert kills < 10 or resumed > 0
