"""Datasets are read by the package that is installed, whatever stands in the current directory."""

from __future__ import annotations

import sys
from importlib.util import find_spec

import pytest
from tiny import tiny_tokenizer

from gramian.adapters.data.hub_texts import installed_alone
from gramian.adapters.data.sources import calibration


@pytest.mark.parametrize("as_package", [False, True])
@pytest.mark.parametrize("entry", ["", "."])
def test_what_stands_in_the_current_directory_is_not_imported(entry, as_package, tmp_path, monkeypatch):
    file = tmp_path / "datasets.py"
    if as_package:
        (tmp_path / "datasets").mkdir()
        file = tmp_path / "datasets" / "__init__.py"
    file.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\ndef load_dataset(*_, **__): return []\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "datasets", raising=False)
    path = [entry if entry == "" else str(tmp_path), *sys.path]
    monkeypatch.setattr(sys, "path", path[:])
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # where the package is installed, it has no such dataset
    with installed_alone():
        known = find_spec("datasets") is not None
    kind, words = (OSError, "dataset hf:name cannot be read") if known else (ImportError, r"gramian\[datasets\]")
    with pytest.raises(kind, match=words):
        calibration("hf:name", tiny_tokenizer(), samples=1, length=4)
    assert not (tmp_path / "ran").exists() and sys.path == path
