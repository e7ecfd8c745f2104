"""Runs of several processes: bytes do not depend on how many there are, and a run goes on after one has died."""

import json
import os
import signal
import socket
import time
from contextlib import closing
from pathlib import Path

import pytest
import torch
from command_line import TEXT, model_fixture, short_builtin_text_fixture, text_fixture  # noqa: F401
from expert_models import expert_model
from forked_runs import digests, ended, forked, records
from tiny import tiny_tokenizer

from gramian.adapters import save
from gramian.adapters.passes import row_parts
from gramian.adapters.run import forward

CORE = [each for option in ("block=8", "sweeps=1", "warm_start=sparsegpt", "save=wrapped") for each in ("--set", option)]
METHODS = {
    "own output on pruned inputs": ["--method", "sparsegpt"],
    "the dense model's output": ["--method", "l0", "--set", "steps=20"],
    "rows of an operator's own output": ["--method", "l0", "--set", "steps=20", "--target", "own", "--sparsity", "2:4"],
    "rows of the dense model's output": ["--method", "l0", "--set", "steps=20", "--sparsity", "2:4"],
    "a core between wrappers, own output": ["--method", "armor", "--target", "own", "--sparsity", "2:4", *CORE],
    "dense inputs": ["--method", "fistapruner", "--set", "max_lambdas=2"],
    "own output in other bases": ["--method", "sparsegpt", "--sparsity", "2:4", "--rotate-heads", "--permute-channels"],
    "the dense model's output in other bases": ["--method", "wanda", "--target", "model", "--rotate-heads"],
    "units, on dense inputs": ["--method", "flap", "--ratio", "0.3"],
    "blocks, to their own output": ["--method", "sparsegpt", "--refit", "block"],
    "units, on pruned inputs, blocks": ["--method", "numerical", "--ratio", "0.3", "--refit", "block"],
    "units, on pruned inputs": ["--method", "numerical", "--ratio", "0.3", "--calibrate-on", "pruned", "--refit-producers"],
}
WINDOWS = ["--samples", "9", "--length", "32", "--heldout", "3"]


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def begun(count: int, arguments: list[str], tokens: int = 32, restarts: int = 0, **options) -> list[int]:
    """The processes that torchrun would start for a command line. tokens: in a batch, so that a few windows are many."""
    port = free_port()

    def place(rank: int) -> None:
        forward.TOKENS_PER_BATCH = tokens
        row_parts.ROWS = 5  # so that a few rows are many
        os.environ.update(
            RANK=f"{rank}", LOCAL_RANK=f"{rank}", WORLD_SIZE=f"{count}", MASTER_ADDR="127.0.0.1", MASTER_PORT=f"{port}",
            GLOO_SOCKET_IFNAME="lo", TORCHELASTIC_RESTART_COUNT=f"{restarts}",
        )  # fmt: skip

    return [
        forked([str(each) for each in arguments], lambda rank=rank: place(rank), log=f"log{rank}", **options)
        for rank in range(count)
    ]


def by(count: int, *arguments, **options) -> Path:
    """What so many processes save."""
    out = Path(f"out{count}")
    codes = [ended(process) for process in begun(count, [*arguments, "--out", out, "--no-perplexity"], **options)]
    assert codes == [0] * count, Path("log0").read_text()
    for rank in range(1, count):
        assert Path(f"log{rank}").read_text() == ""
    assert not Path(f"{out}.journal").exists()
    return out


@pytest.mark.parametrize("kind", METHODS)
def test_bytes_do_not_depend_on_the_number_of_processes(model, text, tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    arguments = ["prune", model, *METHODS[kind], "--calibration", text, *WINDOWS]
    assert digests(by(3 if "output" in kind else 2, *arguments)) == digests(by(1, *arguments))


@pytest.mark.parametrize("kind", ["the dense model's output", "dense inputs", "units, on pruned inputs"])
def test_text_of_two_domains(model, text, tmp_path, monkeypatch, kind):
    """Weights that are no number of windows, so that every sum is scaled."""
    monkeypatch.chdir(tmp_path)
    Path("other.txt").write_text(" ".join(str(7 * number) for number in range(900)))
    domains = ["--calibration", f"{text}=0.7", "--calibration", "other.txt=0.3"]
    arguments = ["prune", model, *METHODS[kind], *domains, *WINDOWS]
    one, two = by(1, *arguments), by(2, *arguments)
    assert digests(two) == digests(one)
    figures = [json.loads((folder / "gramian.json").read_text())["domains"] for folder in (one, two)]
    assert figures[0] == figures[1] and all(each["mean_heldout_error"] > 0 for each in figures[0])


def test_groups_of_several_batches(model, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["prune", model, "--method", "l0", "--set", "steps=5", "--calibration", text]
    arguments += ["--samples", "34", "--length", "16", "--heldout", "5"]
    assert digests(by(2, *arguments, tokens=16)) == digests(by(1, *arguments, tokens=16))


def test_experts_that_are_packed(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    model = save(expert_model("mixtral"), tiny_tokenizer(), tmp_path / "mixture")
    arguments = ["prune", model, "--method", "l0", "--set", "steps=5", "--calibration", text, *WINDOWS]
    assert digests(by(2, *arguments)) == digests(by(1, *arguments))


@pytest.mark.parametrize("kind", ["own output on pruned inputs", "dense inputs"])
def test_a_checkpoint_read_block_by_block(model, text, tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    arguments = ["prune", model, *METHODS[kind], "--calibration", text, *WINDOWS, "--memory", "stream", "--problems"]
    assert digests(by(2, *arguments, "problems2")) == digests(by(1, *arguments, "problems1"))
    assert digests(Path("problems2")) == digests(Path("problems1"))


@pytest.mark.parametrize("lost", [0, 1])
@pytest.mark.parametrize("kind", ["the dense model's output", "dense inputs"])
def test_a_process_that_dies_ends_the_others_and_the_run_goes_on(model, text, tmp_path, monkeypatch, kind, lost):
    monkeypatch.chdir(tmp_path)
    arguments = ["prune", model, *METHODS[kind], "--calibration", text, *WINDOWS]
    expected = digests(by(1, *arguments))
    processes = begun(2, [*arguments, "--out", "out2", "--no-perplexity"])
    while records(Path("out2")) == 0:
        time.sleep(1e-3)
    os.kill(processes[lost], signal.SIGKILL)
    codes = [ended(process) for process in processes]
    if records(Path("out2")):  # else the run had ended before
        assert codes[lost] == -signal.SIGKILL
        assert codes[1 - lost] == 1 or (codes[1] == 0 and lost == 0)  # the second one's part had been done
        lines = Path(f"log{1 - lost}").read_text().splitlines()
        errors = [line for line in lines if line.startswith("gramian: error: ")]
        if lost == 0:
            assert lines == []
        else:
            assert len(errors) == 1
            assert "another process of the group has ended" in errors[0]
            assert "--resume" in errors[0]
        assert digests(by(2, *arguments, restarts=1)) == expected


def test_jobs_are_not_for_processes(model, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["prune", model, *METHODS["dense inputs"], "--calibration", text, *WINDOWS, "--jobs", "2", "--out", "out"]
    assert [ended(process) for process in begun(2, arguments)] == [1, 1]
    assert "jobs=2 does not go with several processes" in Path("log0").read_text()


def test_in_a_group_that_a_program_has_made(model, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def program(arguments: list[str]) -> int:
        from gramian import load, prune

        if int(os.environ["WORLD_SIZE"]) > 1:
            torch.distributed.init_process_group("gloo")
        found, _ = load(arguments[0])
        windows = torch.randint(3, 64, (6, 24), generator=torch.Generator().manual_seed(0))
        report = prune(found, windows, "l0", sparsity=0.5, options={"steps": 5}, progress=False)
        torch.save([found.state_dict(), [row.relative_error for row in report.operators]], f"state{os.environ['RANK']}")
        return 0

    assert [ended(process) for process in begun(1, [model], run=program)] == [0], Path("log0").read_text()
    weights, errors = torch.load("state0")
    assert [ended(process) for process in begun(2, [model], run=program)] == [0, 0], Path("log1").read_text()
    for rank in range(2):
        theirs, found = torch.load(f"state{rank}")
        assert found == errors
        assert all(torch.equal(theirs[name], value) for name, value in weights.items())
