"""Every call of a run that changes the disk, and what happens where the process is killed before it, or where the disk fails.

What was there is there, or the whole result is; nothing is half done; and the same command goes on with `--resume`, which names
and removes what is left beside its outputs."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from forked_runs import digests, ended, forked
from tiny import tiny_model, tiny_tokenizer

from gramian.adapters import drafts, save

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]
CALLS = ("rename", "replace", "mkdir", "rmdir", "unlink", "link", "fsync")
ARGUMENTS = ["prune", "source", "--samples", "4", "--length", "24", "--heldout", "0", "--no-perplexity", "--method"]
RUNS = {
    "with problem files": [*ARGUMENTS, "magnitude", "--calibration", "text.txt", "--problems", "problems"],
    "on sampled text": [*ARGUMENTS, "flap", "--calibration", "self"],
    "streamed": [*ARGUMENTS, "magnitude", "--calibration", "text.txt", "--memory", "stream"],
}


def failing(number: int, fault: str) -> Callable[[], object]:
    """Before its call `number`, and never with 0, the process ends, or the call raises OSError."""

    def changed() -> None:
        count = 0

        def counted(real):
            def call(*arguments, **options):
                nonlocal count
                count += 1
                if count == number and fault == "killed":
                    os._exit(9)
                if count == number:
                    Path("failed").write_text(real.__name__)
                    raise OSError(errno.EIO, "Input/output error")
                Path("calls").write_text(str(count))
                return real(*arguments, **options)

            return call

        for name in CALLS:
            setattr(os, name, counted(getattr(os, name)))
        drafts.exchange = counted(drafts.exchange)

    return changed


@pytest.fixture
def work(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save(tiny_model("llama"), tiny_tokenizer(), "source")
    save(tiny_model("llama", seed=1), tiny_tokenizer(), "old")
    Path("text.txt").write_text(" ".join(map(str, range(2000))))
    return tmp_path


def beside() -> set[str]:
    return {path.name for path in Path().iterdir()} - {"source", "old", "text.txt", "log", "calls", "failed"}


@pytest.mark.parametrize("fault", ["killed", "disk"])
@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("some", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_before_every_call(name, fault, some, work):
    arguments = [*RUNS[name], "--out", "out", "--overwrite"]
    shutil.copytree("old", "out")
    assert ended(forked(arguments, failing(0, fault))) == 0, Path("log").read_text()
    total, old = int(Path("calls").read_text()), digests(Path("old"))
    new = digests(Path("out"))
    problems = digests(Path("problems")) if "--problems" in arguments else None
    assert ("calibration.safetensors" in new) == (name == "on sampled text")
    swept = 0
    for number in (total // 2, total - 3) if some else range(1, total + 1):
        for place in beside():
            shutil.rmtree(place)
        shutil.copytree("old", "out")
        code = ended(forked(arguments, failing(number, fault)))
        said = Path("log").read_text()
        # 0 where it is a directory that cannot be brought to the disk, or what is not needed any more that cannot be removed
        assert code in ((9,) if fault == "killed" else (0, 1)), said
        assert "Traceback" not in said, said
        assert digests(Path("out")) in (old, new)
        assert not Path("problems").exists() or digests(Path("problems")) == problems
        if fault == "disk":
            removing = Path("failed").read_text() in ("unlink", "rmdir")  # what cannot be removed is left
            assert removing or beside() <= {"out", "out.journal", "problems"}, "drafts are left"
            assert code == 0 or "Input/output error" in said
        finished = digests(Path("out")) == new
        drafts = [path.name for path in Path().iterdir() if path.name.startswith(".out.")]
        again = [*RUNS[name], "--out", "out", "--resume", *([] if finished else ["--overwrite"])]
        assert ended(forked(again)) == 0, Path("log").read_text()
        assert digests(Path("out")) == new and beside() <= {"out", "problems"}
        assert problems is None or digests(Path("problems")) == problems
        for draft in drafts:
            assert f"{draft}, which a run that was killed has left" in Path("log").read_text()
            swept += 1
    assert some or swept > 0
