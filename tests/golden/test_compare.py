"""The golden comparison finds what differs, and takes a name that changed for what it was. Nothing is installed here."""

from __future__ import annotations

import copy
import json
import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from golden import present
from golden.cases import CASES
from golden.compare import ABSENT, Difference, differences
from golden.observation import folder_seen, plain
from golden.renamed import Renamed

WEIGHTS = {"model.layers.0.mlp.up_proj.weight": torch.arange(6.0).reshape(2, 3)}
ROW = {"name": "model.layers.0.mlp.up_proj", "residual": 1e-9, "seconds": 0.5, "detail": {"ridge": float("nan")}}
LEFT = {
    "weights": plain(WEIGHTS),
    "report": {"settings": {"share": 0.5, "inputs": "pruned", "versions": {"torch": "2"}}, "operators": [ROW], "seconds": 2.0},
    "files": {"out/model.safetensors": plain(WEIGHTS), "out/config.json": {"layers": [16, 24], "bias": []}},
}


def compared(after: dict[str, Any], **renamed: Any) -> list[Difference]:
    return differences({"case": LEFT}, {"case": after}, Renamed(**renamed))


@pytest.fixture
def after() -> dict[str, Any]:
    return copy.deepcopy(LEFT)


def test_nothing_but_times_and_versions_may_differ(after):
    assert compared(after) == []
    after["report"]["seconds"] = after["report"]["operators"][0]["seconds"] = 9.0
    after["report"]["settings"]["versions"]["torch"] = "3"
    assert compared(json.loads(json.dumps(after))) == []


def test_a_bit_of_a_weight(after):
    other = WEIGHTS["model.layers.0.mlp.up_proj.weight"].clone()
    other[1, 2] = torch.nextafter(other[1, 2], torch.tensor(9.0))
    after["weights"] = plain({"model.layers.0.mlp.up_proj.weight": other})
    (found,) = compared(after)
    assert found.case == "case" and found.place == "/weights/model.layers.0.mlp.up_proj.weight/sha256"


def test_dtype_and_shape_of_equal_bytes():
    array = np.arange(4, dtype=np.int32)
    assert plain(array) == plain(torch.from_numpy(array))
    assert plain(array)["sha256"] == plain(array.view(np.float32))["sha256"] and plain(array) != plain(array.view(np.float32))
    assert plain(array) != plain(array.reshape(2, 2)) and plain(np.float64(1.5)) == plain(1.5)
    assert plain(torch.tensor(1.0, dtype=torch.bfloat16))["shape"] == "[]"


def test_a_figure_of_a_row(after):
    other = math.nextafter(1e-9, 1)
    after["report"]["operators"][0]["residual"] = other
    place = "/report/operators/0 model.layers.0.mlp.up_proj/residual"
    assert compared(after) == [Difference("case", place, "1e-09", repr(other))]


def test_what_is_missing_and_what_is_new(after):
    del after["files"]["out/config.json"]["layers"]
    after["files"]["out/extra.txt"] = "sha"
    found = {each.place: (each.before, each.after) for each in compared(after)}
    assert found == {
        "/files/out/config.json/layers/0": ("16", ABSENT), "/files/out/config.json/layers/1": ("24", ABSENT),
        "/files/out/extra.txt": (ABSENT, "'sha'"),
    }  # fmt: skip
    assert compared(after, dropped=("/layers/",), added=(r"extra\.txt$",)) == []


def test_rows_in_another_order():
    rows = [{**ROW, "name": name} for name in ("one", "two")]
    assert differences({"case": {"rows": rows}}, {"case": {"rows": rows[::-1]}}, Renamed())


def test_a_renamed_key_and_a_renamed_value_map(after):
    settings, row = after["report"]["settings"], after["report"]["operators"][0]
    settings["target_blend"] = settings.pop("share")
    settings["calibrate_on"] = "compressed"
    del settings["inputs"]
    row["kkt"] = row.pop("residual")
    after["files"]["out/widths.json"] = after["files"].pop("out/config.json")
    renamed: dict[str, Any] = {
        "settings": {"share": "target_blend", "inputs": "calibrate_on"},
        "choices": {"inputs": {"pruned": "compressed"}},
        "paths": {"residual$": "kkt", "/out/config.json/": "/out/widths.json/"},
    }
    assert compared(after, **renamed) == []
    assert len(compared(after, **{**renamed, "choices": {}})) == 1
    settings["target_blend"] = 0.25
    assert [each.place for each in compared(after, **renamed)] == ["/report/settings/target_blend"]


def test_words_that_changed():
    before, after = {"case": {"rows": [{"status": "as asked"}]}}, {"case": {"rows": [{"status": "converged"}]}}
    assert differences(before, after, Renamed(words={"/status$": {"as asked": "converged"}})) == []
    assert len(differences(before, after, Renamed())) == 1


def test_a_case_that_failed_on_both_sides_or_did_not_run():
    failed = {"case": {"error": "ValueError: no"}}
    assert len(differences(failed, failed, Renamed())) == 1
    assert len(differences({}, {}, Renamed(), ["case"])) == 1
    assert differences({"case": LEFT}, {}, Renamed())


def test_the_working_tree_is_called_by_names_of_today(monkeypatch):
    renamed = Renamed(
        settings={"share": "target_blend", "visits": "max_lambdas"},
        choices={"allocation": {"kinds": "per_type"}},
        flags={"--option": "--set", "--stream": None},
    )
    monkeypatch.setattr(present, "RENAMED", renamed)
    asked = {"share": 0.5, "allocation": "kinds", "options": {"visits": 3}, "ratio": 0.2}
    assert present.present_settings(asked) == {
        "target_blend": 0.5, "allocation": "per_type", "options": {"max_lambdas": 3}, "ratio": 0.2,
    }  # fmt: skip
    line = "prune m --share 0.5 --allocation kinds --visits 3 --option tau=null --stream --out kinds"
    assert present.present_arguments(line.split()) == (
        "prune m --target-blend 0.5 --allocation per_type --max-lambdas 3 --set tau=null --out kinds".split()
    )


def test_files_are_seen(tmp_path):
    (tmp_path / "out").mkdir()
    save_file(WEIGHTS, tmp_path / "out" / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "out" / "config.json").write_text('{"width": 16}')
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "config.json").write_text("{}")
    seen = folder_seen(tmp_path, but=("source",))
    assert seen == {
        "out/config.json": {"width": 16}, "out/model.safetensors": {"metadata": {"format": "pt"}, **plain(WEIGHTS)},
    }  # fmt: skip


def test_cases_have_names_of_their_own_and_verbs_that_are_there():
    assert max(Counter(case.name for case in CASES).values()) == 1
    assert {case.verb for case in CASES} <= set(present.__all__)
