"""Files and directories that appear complete or not at all, whenever a process is killed; results into pipes and through links;
disks and names that are too small."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import sys
import threading
from pathlib import Path

import pytest
from tiny import tiny_model

from gramian.adapters import drafts
from gramian.adapters.drafts import exchange, new_directory, recover
from gramian.adapters.files import check_output, check_result, check_space, write_bytes, write_json
from gramian.adapters.models.saving import save

WHOLE = {what: {"config.json": what.encode(), "model.safetensors": what.encode()} for what in ("old", "new")}
CALLS = ("rename", "replace", "mkdir", "unlink", "rmdir", "fsync")


def held(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def beside(out: Path, process: int, what: str) -> Path:
    """A directory with the name that a process gives to a draft, or to what was at `out`."""
    name = f"{out.name}.{process}.0a1b2c3d.{what}"
    path = out.with_name(f".{name}" if what == "new" else name)
    path.mkdir()
    for name in WHOLE[what]:
        (path / name).write_text(what)
    return path


def ended() -> int:
    """The number of a process that has ended."""
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return child


forks = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),  # of threads, which the children do not need
]


def killed(before: int, exchanges: bool, work) -> bool:
    """Whether a child that ends before its call number `before` that changes the disk has ended there."""
    child = os.fork()
    if child == 0:
        try:
            count = 0

            def counted(real):
                def call(*arguments, **options):
                    nonlocal count
                    count += 1
                    if count == before:
                        os._exit(9)
                    return real(*arguments, **options)

                return call

            for name in CALLS:
                setattr(os, name, counted(getattr(os, name)))
            drafts.exchange = counted(drafts.exchange) if exchanges else lambda one, two: False
            work()
            os._exit(0)
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9)
    return code == 9


@pytest.mark.parametrize("exchanges", [True, False])
class TestKilled:
    pytestmark = forks

    def test_overwriting_leaves_the_old_or_the_new_model(self, exchanges, tmp_path):
        """Before every call that changes the disk; what is left beside it is gone after the next run."""
        old, new = (save(tiny_model("gpt2", seed=seed), None, tmp_path / str(seed)) for seed in (0, 1))
        save(tiny_model("gpt2", seed=1), None, new, report={"method": "none"}, overwrite=True)
        model, states, count, missing = tiny_model("gpt2", seed=1), [], 0, 0
        whole = {"old": held(old), "new": held(new)}
        while True:
            count += 1
            out = tmp_path / "work" / str(count) / "model"
            shutil.copytree(old, out)
            dead = killed(count, exchanges, lambda out=out: save(model, None, out, report={"method": "none"}, overwrite=True))
            missing += not out.exists()
            recover(out)
            states.append(next(name for name, content in whole.items() if held(out) == content))
            with new_directory(out, overwrite=True) as draft:
                (draft / "config.json").write_text("{}")
            assert [path.name for path in out.parent.iterdir()] == ["model"]
            if not dead:
                break
        assert states == sorted(states, reverse=True) and states.count("new") > 3 and states.count("old") > 10
        assert missing == (0 if exchanges and sys.platform in ("linux", "darwin") else 1)

    def test_recovering_may_be_killed_too(self, exchanges, tmp_path):
        """The old model is back, or gone for good where there is a new one: no half of it comes back once that is removed."""
        process, count, dead = ended(), 0, [True]
        while any(dead):
            count, dead = count + 1, []
            for there in (False, True):
                out = tmp_path / f"{count} {there}" / "model"
                out.parent.mkdir()
                beside(out, process, "new"), beside(out, process, "old")
                if there:
                    out.mkdir()
                dead.append(killed(count, exchanges, lambda out=out: recover(out)))
                if there:
                    assert out.exists()
                    out.rmdir()
                recover(out)
                assert held(out) == WHOLE["old"] if out.exists() else there
                assert [path.name for path in out.parent.iterdir()] == (["model"] if out.exists() else [])
        assert count > 6


# -- what is beside an output ------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform not in ("linux", "darwin"), reason="the system cannot exchange names")
def test_two_names_are_exchanged(tmp_path):
    one, two = beside(tmp_path / "model", 1, "new"), beside(tmp_path / "model", 1, "old")
    names = ("old", "new") if exchange(one, two) else ("new", "old")  # a file system that cannot do it leaves both as they are
    assert (held(one), held(two)) == tuple(WHOLE[name] for name in names)
    assert not exchange(one, tmp_path / "missing") and one.exists()


class TestLeftovers:
    pytestmark = forks

    @pytest.mark.parametrize("overwrite", [False, True])
    def test_check_output_puts_back_what_was_there(self, overwrite, tmp_path):
        out = tmp_path / "model"
        old = beside(out, ended(), "old")
        if overwrite:
            check_output(out, True)
        else:
            with pytest.raises(FileExistsError, match="--overwrite"):
                check_output(out, False)
        assert held(out) == WHOLE["old"] and not old.exists()

    def test_the_next_run_clears_up(self, tmp_path):
        out, process = tmp_path / "model", ended()
        beside(out, process, "new"), beside(out, process, "old")
        with pytest.raises(FileExistsError, match="was empty"), new_directory(out, overwrite=False) as draft:
            assert held(out) == WHOLE["old"] and sorted(tmp_path.iterdir()) == sorted([out, draft])
            (draft / "config.json").write_text("{}")

    def test_what_others_have_stays(self, tmp_path):
        """Drafts of a process that runs, of another output, and a user's own names."""
        out = tmp_path / "model"
        others = [beside(out, os.getppid(), "new"), beside(tmp_path / "model2", ended(), "new")]
        for name in ("model.old", "model.1.old", f".model.{ended()}.new", "model.bak", ".model.abc.0a1b2c3d.new"):
            others.append(tmp_path / name)
            others[-1].mkdir()
        with new_directory(out, overwrite=True) as draft:
            (draft / "config.json").write_text("{}")
            check_output(out, True)  # of the same process, which leaves its own draft alone
            assert draft.is_dir()
        assert sorted(tmp_path.iterdir()) == sorted([out, *others])

    def test_the_number_of_a_process_comes_again(self, tmp_path):
        """As in containers, where every run may have the same number."""
        beside(tmp_path / "model", os.getpid(), "old")
        beside(tmp_path / "model", os.getpid(), "new")
        recover(tmp_path / "model")
        assert [path.name for path in tmp_path.iterdir()] == ["model"]
        assert held(tmp_path / "model") == WHOLE["old"]


def test_what_is_renamed_is_on_the_disk(tmp_path, monkeypatch):
    """Every file, then the directory, then, after the rename, the directory that holds it."""
    done, rename, fsync = [], os.rename, os.fsync

    def place(number: int) -> str:
        return next(
            str(path.relative_to(tmp_path))
            for path in [tmp_path, *tmp_path.rglob("*")]
            if os.path.samestat(path.stat(), os.fstat(number))
        )

    monkeypatch.setattr(os, "fsync", lambda number: (done.append(place(number)), fsync(number)))
    monkeypatch.setattr(os, "rename", lambda one, two: (done.append("rename"), rename(one, two)))
    with new_directory(tmp_path / "model", overwrite=False) as draft:
        (draft / "inside").mkdir()
        for name in ("config.json", "inside/text", "model.safetensors"):
            (draft / name).write_text("x")
    expected = [f"{draft.name}/{name}" for name in ("config.json", "inside", "inside/text", "model.safetensors")]
    assert done == [*expected, draft.name, "rename", "."]
    done.clear()
    write_bytes(tmp_path / "model" / "config.json", b"y")
    assert len(done) == 2 and done[0].startswith("model/.config.json.") and done[1] == "model"


def test_directories_that_cannot_be_synchronised_are_no_error(tmp_path, monkeypatch):
    """Of a file it is one: what was written might not be there."""
    fsync = os.fsync

    def only_files(number):
        if stat.S_ISDIR(os.fstat(number).st_mode):
            raise OSError(errno.EINVAL, "no")
        fsync(number)

    def nothing(number):
        raise OSError(errno.EIO, "the disk is broken")

    monkeypatch.setattr(os, "fsync", only_files)
    write_json(tmp_path / "result.json", {})
    monkeypatch.setattr(os, "fsync", nothing)
    with pytest.raises(OSError, match="broken"):
        write_json(tmp_path / "result.json", {"more": 1})
    assert held(tmp_path) == {"result.json": b"{}\n"}


# -- names and disks ---------------------------------------------------------------------------------------------------


def test_names_that_are_too_long_are_known_early(tmp_path):
    longest = os.pathconf(tmp_path, "PC_NAME_MAX")
    check_output(tmp_path / ("a" * (longest - drafts.ADDED)), False)
    with new_directory(tmp_path / ("a" * (longest - drafts.ADDED)), False) as draft:
        (draft / "config.json").write_text("{}")
    check_output(tmp_path / ("a" * longest), False, adding=True)
    for name in ("a" * (longest - drafts.ADDED + 1), "é" * (longest // 2), "a" * 4000, f"{'a' * (longest + 1)}/model"):
        with pytest.raises(OSError, match="is too long"):
            check_output(tmp_path / name, False)
    with pytest.raises(OSError, match="is too long"):
        check_result(tmp_path / ("a" * longest))


def test_names_that_are_no_text_are_known_early(tmp_path):
    for check in (lambda path: check_output(path, False), check_result):
        with pytest.raises(OSError, match=r"'.*x\\udcff' cannot be written: its name is not UTF-8"):
            check(tmp_path / "x\udcff")


def test_links_in_a_circle(tmp_path):
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    for check in (lambda path: check_output(path, False), check_result, lambda path: write_json(path, {})):
        with pytest.raises(OSError, match="leads to itself"):
            check(tmp_path / "circle")
    assert (tmp_path / "circle").is_symlink()


def test_space(tmp_path):
    free = shutil.disk_usage(tmp_path).free
    check_space(tmp_path / "new" / "model", 0)
    with pytest.raises(OSError, match=rf"^{free * 1000} bytes are needed, but only \d+ are free on the disk of .*model$"):
        check_space(tmp_path / "new" / "model", free * 1000)


# -- results -----------------------------------------------------------------------------------------------------------


def test_a_result_on_stdout(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    check_result(Path("-"))
    write_json(Path("-"), {"infinite": float("inf")})
    assert json.loads(capsys.readouterr().out) == {"infinite": "inf"} and not list(tmp_path.iterdir())


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_a_result_into_a_pipe(tmp_path):
    pipe, found = tmp_path / "pipe", []
    os.mkfifo(pipe)
    check_result(pipe)
    reader = threading.Thread(target=lambda: found.append(pipe.read_text()), daemon=True)
    reader.start()
    write_json(pipe, {"value": 1})
    reader.join(timeout=60)
    assert json.loads(found[0]) == {"value": 1} and stat.S_ISFIFO(pipe.stat().st_mode)
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


@pytest.mark.skipif(not os.path.exists("/dev/fd"), reason="there is no /dev/fd")
def test_a_result_into_what_a_shell_opened():
    """`--json >(command)` is a link to a pipe that has no other name."""
    reading, writing = os.pipe()
    check_result(Path(f"/dev/fd/{writing}"))
    write_json(Path(f"/dev/fd/{writing}"), {"value": 1})
    os.close(writing)
    with os.fdopen(reading) as pipe:
        assert json.load(pipe) == {"value": 1}


def test_a_result_through_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(Path("real") / "result.json")  # of a file that is not there yet
    for value in (1, 2):
        check_result(tmp_path / "link")
        write_json(tmp_path / "link", {"value": value})
        assert (tmp_path / "link").is_symlink() and json.loads((tmp_path / "real" / "result.json").read_text()) == {
            "value": value
        }
    assert len(list(tmp_path.rglob("*"))) == 3
    (tmp_path / "astray").symlink_to(tmp_path / "missing" / "result.json")
    with pytest.raises(OSError, match="its directory is missing"):
        check_result(tmp_path / "astray")
