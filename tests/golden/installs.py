"""Two versions side by side, with the same numpy, torch and transformers: those of the running Python."""

from __future__ import annotations

import importlib.util
import io
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

__all__ = ["ROOT", "baseline_source", "install", "present_source"]

ROOT = Path(__file__).resolve().parents[2]


def baseline_source(commit: str, folder: Path) -> None:
    """Files of a commit. RuntimeError if the clone does not have it."""
    done = subprocess.run(["git", "archive", "--format=tar", commit], cwd=ROOT, capture_output=True)
    if done.returncode:
        raise RuntimeError(f"this clone has no commit {commit} ({done.stderr.decode().strip()}): git fetch --unshallow")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="data")


def present_source(folder: Path) -> None:
    """Files of the working tree as they are now, without what git ignores."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():  # else deleted, or a link to a directory
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)


def install(source: Path, target: Path) -> None:
    """The package alone, by pip, into a directory for PYTHONPATH. RuntimeError without pip, and where it fails."""
    pip = [sys.executable, "-m", "pip"]
    if importlib.util.find_spec("pip") is None:
        outside = shutil.which("pip")
        if outside is None:
            raise RuntimeError("pip is needed to install the two versions")
        pip = [outside, "--python", sys.executable]
    command = [*pip, "install", "--quiet", "--no-deps", "--target", str(target), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{source.name} cannot be installed:\n{done.stderr}")
