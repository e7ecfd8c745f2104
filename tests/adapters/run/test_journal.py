"""The journal of a run: what is kept comes back, a run goes on where it stopped, and no other run goes on with it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny import HELDOUT, WINDOWS, tiny_model, tiny_tokenizer

import gramian
from gramian.adapters import files, save
from gramian.adapters.passes.scores import ScoreUnits, Verdict
from gramian.adapters.report import OperatorReport
from gramian.adapters.resuming import Finished
from gramian.adapters.run.block_records import as_array, as_tensor
from gramian.adapters.run.journal import Journal, Record, differences, journal_of, refuse_journal
from gramian.adapters.run.records import Packer, unpacked
from gramian.adapters.run.streaming import Stream
from gramian.solvers import MaskProblem, Quadratic, relaxed_mask

pytestmark = pytest.mark.usefixtures("small_batches")
HOW = {"method": "numerical", "ratio": 0.3, "heldout": HELDOUT, "progress": False}


def again(value, *types):
    packer = Packer()
    words = json.loads(json.dumps(packer.packed(value)))
    return unpacked(words, packer.arrays, {each.__name__: each for each in types}, lambda array: array)


def test_rows_come_back_as_they_were():
    row = OperatorReport("a", (2, 3), "2:4", 0.5, 1e-300, None, float("inf"), "done", 0.25, {"gap": float("nan"), "x": -0.0})
    found = again([row, row], OperatorReport)
    assert repr(found) == repr([row, row]) and found[0].shape == (2, 3) and type(found[0].shape) is tuple
    assert np.isnan(found[1].detail["gap"]) and str(found[1].detail["x"]) == "-0.0" and found[0].residual == float("inf")
    problem = MaskProblem.from_problem(Quadratic(np.diag([1.0, 2.0, 3.0]), np.ones((2, 3))))
    relaxed = relaxed_mask(problem, 2.0)
    verdict = Verdict(gramian.adapters.UnitScores(relaxed.keep, None, relaxed, 3.0), problem)
    back = again(verdict, *ScoreUnits.types)
    assert np.array_equal(back.problem.matrix, problem.matrix) and np.array_equal(back.scores.scores, relaxed.keep)
    assert back.scores.relaxed.bound_at(2.0) == relaxed.bound_at(2.0) and back.scores.relaxed.status is relaxed.status


def test_only_known_types_are_made():
    with pytest.raises(KeyError):
        unpacked({"type": "Popen", "args": "true"}, {}, {}, lambda array: array)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_tensors_come_back_bit_for_bit(dtype, tmp_path):
    value = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
    journal = Journal(tmp_path / "out.journal", {"run": 1})
    journal.start()
    kind = str(dtype).removeprefix("torch.")
    journal.write("weights", 0, Record([], {"0": np.arange(3)}, {"w": as_array(value)}, {"w": kind}))
    found = journal.read("weights", 0)
    assert as_tensor(found.tensors["w"], found.kinds["w"]).equal(value) and found.arrays["0"].tolist() == [0, 1, 2]
    assert (journal.finished("weights"), journal.finished("scores")) == ({0}, set())
    journal.remove()
    assert not journal.folder.exists()


def test_another_run_does_not_go_on_with_it(tmp_path):
    journal = Journal(tmp_path / "out.journal", {"settings": {"damping": 0.1}, "weights": "a"})
    journal.start()
    journal.write("weights", 0, Record([]))
    journal.release()
    other = Journal(journal.folder, {"settings": {"damping": 0.2}, "weights": "a"})
    with pytest.raises(ValueError, match=r"journal of another run: settings\.damping was 0\.1 and is 0\.2\."):
        other.start()
    assert differences({"a": 1}, {"a": 1, "b": None}) == [] and differences({"a": {"b": 1}}, {"a": {}}) == [
        "a.b was 1 and is None"
    ]


def test_what_is_left_of_a_removed_journal_is_of_no_run(tmp_path):
    """A kill between the removal of `run.json` and that of the records."""
    journal = Journal(tmp_path / "out.journal", {"run": 1})
    journal.start()
    journal.write("weights", 0, Record([]))
    (journal.folder / "run.json").unlink()
    journal.release()
    other = Journal(journal.folder, {"run": 2})
    other.start()
    assert other.finished("weights") == set()  # the record is of another run
    other.write("weights", 1, Record([]))
    other.release()
    journal.clear()
    assert journal.folder.exists()  # another run's
    (journal.folder / "run.json").unlink()
    journal.clear()
    assert not journal.folder.exists()
    journal.clear()


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such locks")
def test_one_process_writes_a_journal(tmp_path):
    journal = Journal(tmp_path / "out.journal", {})
    journal.start()
    with pytest.raises(BlockingIOError, match="is being written by another process"):
        Journal(journal.folder, {}).start()
    journal.release()
    assert not journal.folder.exists()  # it held nothing


def test_a_journal_in_the_way(tmp_path):
    out = tmp_path / "out"
    folder = journal_of(out)
    refuse_journal(out, False, False)
    journal = Journal(folder, {})
    journal.start()
    journal.write("weights", 0, Record([]))
    journal.release()
    with pytest.raises(FileExistsError, match=r"did not end \(1 blocks are done\).*--resume.*--overwrite"):
        refuse_journal(out, False, False)
    refuse_journal(out, True, False)
    assert folder.exists()
    (folder / "notes.txt").write_text("mine")
    for resume, overwrite in ((False, True), (True, False), (False, False)):
        with pytest.raises(FileExistsError, match=r"holds notes\.txt: choose another output"):
            refuse_journal(out, resume, overwrite)
    (folder / "notes.txt").unlink()
    refuse_journal(out, False, True)
    assert not folder.exists()
    journal.start()
    os.close(journal.lock or 0)  # of a run that was killed before its first block
    refuse_journal(out, False, False)
    assert not folder.exists()
    journal.start()
    for overwrite in (False, True):  # it is not ended
        with pytest.raises(BlockingIOError, match="is being written by another process"):
            refuse_journal(out, False, overwrite)
    journal.remove()
    folder.mkdir()  # of a run that was killed at its very beginning
    refuse_journal(out, False, False)
    assert not folder.exists()


@pytest.fixture
def source(tmp_path) -> Path:
    return save(tiny_model("llama"), tiny_tokenizer(), tmp_path / "source")


def broken_at(monkeypatch, count: int) -> list[int]:
    """The power fails after so many records; the answer holds an entry for each that is written."""
    written: list[int] = []
    write = Journal.write

    def failing(self, name, index, record):
        if len(written) == count:
            raise KeyboardInterrupt
        write(self, name, index, record)
        written.append(index)

    monkeypatch.setattr(Journal, "write", failing)
    return written


@pytest.mark.parametrize("count", range(1, 5))
def test_a_path_goes_on_and_reports_the_same(count, source, tmp_path, monkeypatch):
    expected = gramian.prune(source, WINDOWS, out=tmp_path / "expected", **HOW)
    with monkeypatch.context() as patch:
        broken_at(patch, count)
        if count < 4:
            with pytest.raises(KeyboardInterrupt):
                gramian.prune(source, WINDOWS, out=tmp_path / "out", **HOW)
            assert not (tmp_path / "out").exists()
            with pytest.raises(FileExistsError, match="--resume"):
                gramian.prune(source, WINDOWS, out=tmp_path / "out", **HOW)
    with monkeypatch.context() as patch:
        written = broken_at(patch, 99)
        report = gramian.prune(source, WINDOWS, out=tmp_path / "out", resume=True, **HOW)
        assert len(written) == (4 - count if count < 4 else 4)  # two passes over two blocks
    strip = [
        [{**row, "seconds": 0} for row in each.to_dict()["modules"]] + [each.to_dict()["settings"], each.parameters]
        for each in (expected, report)
    ]
    assert json.dumps(strip[0]) == json.dumps(strip[1])
    for file in (tmp_path / "expected").iterdir():
        assert file.name in ("gramian.json", "report.html") or (tmp_path / "out" / file.name).read_bytes() == file.read_bytes()
    with pytest.raises(Finished, match="is finished: it was written by this very run"):
        gramian.prune(source, WINDOWS, out=tmp_path / "out", resume=True, **HOW)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"ratio": 0.2}, r"settings\.ratio was 0\.3 and is 0\.2"),
        ({"method": "flap"}, "method.name was 'numerical' and is 'flap'"),
        ({"heldout": None}, "heldout was '.*' and is None"),
        ({"tokens": WINDOWS[:4]}, "calibration was"),
        ({"threads": 2}, "threads was 1 and is 2"),
        ({"model": 1}, "weights was"),
    ],
)
def test_what_differs_is_named(changed, message, source, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        broken_at(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            gramian.prune(source, WINDOWS, out=tmp_path / "out", **HOW)
    if changed.pop("model", None):
        source = save(tiny_model("llama", seed=1), tiny_tokenizer(), tmp_path / "other")
    threads = changed.pop("threads", 1)
    torch.set_num_threads(threads)
    try:
        with pytest.raises(ValueError, match=f"journal of another run: .*{message}"):
            gramian.prune(source, changed.pop("tokens", WINDOWS), out=tmp_path / "out", resume=True, **HOW | changed)
    finally:
        torch.set_num_threads(1)
    assert os.path.isdir(journal_of(tmp_path / "out"))
    gramian.prune(source, WINDOWS, out=tmp_path / "out", overwrite=True, **HOW)
    assert (tmp_path / "out").is_dir() and not journal_of(tmp_path / "out").exists()


def test_a_damaged_record_is_named(source, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        broken_at(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            gramian.prune(source, WINDOWS, out=tmp_path / "out", **HOW)
    record = next(journal_of(tmp_path / "out").glob("scores-00001*"))
    record.write_bytes(record.read_bytes()[:-8])
    with pytest.raises(ValueError, match="scores-00001"):
        gramian.prune(source, WINDOWS, out=tmp_path / "out", resume=True, **HOW)


def test_what_goes_with_a_path_alone(source, tmp_path):
    for how in ({"out": tmp_path / "out"}, {"resume": True}, {"overwrite": True}):
        with pytest.raises(ValueError, match="go with the path of a model: write a model in memory with save"):
            gramian.prune(tiny_model("llama"), WINDOWS, **how, **HOW)
    with pytest.raises(ValueError, match="is a path, and out= is not given"):
        gramian.prune(source, WINDOWS, **HOW)


def test_a_disk_without_space_is_known_before_any_work(source, tmp_path, monkeypatch):
    monkeypatch.setattr(files.shutil, "disk_usage", lambda place: SimpleNamespace(free=1000))
    with pytest.raises(OSError, match="bytes are needed, but only 1000 are free on the disk of"):
        gramian.prune(source, WINDOWS, out=tmp_path / "out", **HOW)
    with pytest.raises(OSError, match=rf"bytes are needed.* {tmp_path / 'files'}"):
        gramian.prune(tiny_model("llama"), WINDOWS, "wanda", problems=tmp_path / "files", progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_run_that_goes_on_needs_less_space(source, tmp_path, monkeypatch):
    def full(*_):
        raise OSError("No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(Stream, "save", full)
        with pytest.raises(OSError, match="No space left"):
            gramian.prune(source, WINDOWS, out=tmp_path / "out", **HOW)
    held = sum(file.stat().st_size for file in journal_of(tmp_path / "out").iterdir())
    needed = []
    monkeypatch.setattr("gramian.adapters.resuming.check_space", lambda out, space: needed.append(space))
    gramian.prune(source, WINDOWS, out=tmp_path / "out", resume=True, **HOW)
    gramian.prune(source, WINDOWS, out=tmp_path / "other", **HOW)
    assert needed[1] - needed[0] == held > 0


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_problem_files_appear_with_the_result(source, tmp_path, monkeypatch):
    """Those of a run that is interrupted are kept by its journal, and none are lost when it goes on."""
    how = {"method": "magnitude", "progress": False, "problems": tmp_path / "problems"}
    expected = tmp_path / "expected"
    gramian.prune(source, WINDOWS, out=tmp_path / "one", **how | {"problems": expected})
    with monkeypatch.context() as patch:
        broken_at(patch, 1)
        with pytest.raises(KeyboardInterrupt):
            gramian.prune(source, WINDOWS, out=tmp_path / "out", **how)
    assert names(tmp_path) == ["expected", "one", "out.journal", "source"]
    with pytest.raises(ValueError, match="problems was True and is False"):
        gramian.prune(source, WINDOWS, out=tmp_path / "out", resume=True, **how | {"problems": None})
    gramian.prune(source, WINDOWS, out=tmp_path / "out", resume=True, **how)
    assert names(tmp_path) == ["expected", "one", "out", "problems", "source"] and len(names(expected)) == 14
    assert names(tmp_path / "problems") == names(expected)
    for name in names(expected):
        assert (tmp_path / "problems" / name).read_bytes() == (expected / name).read_bytes()
    with pytest.raises(FileExistsError, match=r"problems is not empty"):
        gramian.prune(source, WINDOWS, out=tmp_path / "other", **how)
    assert not (tmp_path / "other").exists() and not journal_of(tmp_path / "other").exists()


def test_problem_files_of_a_model_in_memory_appear_at_once(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("gramian.adapters.passes.weights.certify", lambda *_: pytest.fail("an error"))
        with pytest.raises(pytest.fail.Exception):
            gramian.prune(tiny_model("llama"), WINDOWS, "wanda", problems=tmp_path / "problems", progress=False)
    assert not list(tmp_path.iterdir())
    gramian.prune(tiny_model("llama"), WINDOWS, "wanda", problems=tmp_path / "problems", progress=False)
    assert names(tmp_path) == ["problems"] and len(names(tmp_path / "problems")) == 14


def test_drafts_of_a_process_that_was_killed_are_swept(tmp_path):
    journal = Journal(tmp_path / "out.journal", {"run": 1})
    journal.start()
    journal.write("weights", 0, Record([]))
    journal.release()
    (journal.folder / ".weights-00001.safetensors.4294967295.0a1b2c3d.new").write_bytes(b"half")
    journal.start()
    assert names(journal.folder) == ["run.json", "weights-00000.safetensors"]
    journal.remove()
