"""Where the state of a training that was interrupted stands. Torch is not imported, so that what is in the way is reported at
once."""

from __future__ import annotations

from pathlib import Path

__all__ = ["RUN", "TENSORS", "refuse_other", "refuse_state", "state_of"]

RUN, TENSORS = "run.json", "tensors.safetensors"


def state_of(out: Path) -> Path:
    """The directory of the state of a training whose result is saved at `out`."""
    out = out.expanduser().resolve()
    return out.with_name(f"{out.name}.tuning")


def refuse_other(folder: Path, remedy: str) -> None:
    """Raise FileExistsError for a directory that holds something else than the state of a training, which would be lost."""
    if folder.exists() and not (folder / RUN).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} is where the state of the run goes, but holds something else: {remedy}")


def refuse_state(out: Path, resume: bool, overwrite: bool) -> None:
    """Raise FileExistsError for a state beside an output that is neither gone on with nor replaced, and for something else in
    its place."""
    folder = state_of(out)
    refuse_other(folder, "choose another output")
    if folder.exists() and not (resume or overwrite):
        raise FileExistsError(
            f"{folder} is the state of a run that did not end: go on with it (--resume, resume=True), or begin again "
            "(--overwrite, overwrite=True, removes it)"
        )
