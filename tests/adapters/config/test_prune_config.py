"""Every setting is declared once: what is added there is found everywhere. What cannot be is refused."""

from __future__ import annotations

import inspect
import json
from dataclasses import fields, make_dataclass

import pytest
from tiny import WINDOWS, tiny_model, tiny_tokenizer

import gramian
from gramian.adapters import PruneConfig, save
from gramian.adapters.cli import options, prune
from gramian.adapters.cli.main import main
from gramian.adapters.config import recipes
from gramian.adapters.config.run_config import RunConfig
from gramian.adapters.config.settings import POSITIVE, setting, settings_of
from gramian.solvers import TopK


@pytest.fixture
def shaded(monkeypatch):
    """A configuration with one setting more, where the toolkit has its own."""
    added = [("shade", int, setting(3, POSITIVE, "how dark it becomes; a setting for this test"))]
    larger = make_dataclass("PruneConfig", added, bases=(PruneConfig,), frozen=True)
    for module in (options, prune, recipes):
        monkeypatch.setattr(module, "PruneConfig", larger)
    return larger


def test_a_new_setting_is_found_everywhere(shaded, tmp_path, capsys, monkeypatch):
    """In help, on the command line, in the checks, in a recipe, and in a report."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="0"):
        main(["prune", "--help"])
    assert "--shade N" in (shown := capsys.readouterr().out) and "how dark it becomes (3)" in shown
    save(tiny_model("llama"), tiny_tokenizer(), "model")
    (tmp_path / "text.txt").write_text(" ".join(map(str, range(400))))
    texts = ["--calibration", "text.txt", "--samples", "2", "--length", "16", "--heldout", "0", "--method", "magnitude"]
    assert main(["prune", "model", "--out", "sparse", *texts, "--shade", "5"]) == 0
    document = json.loads((tmp_path / "sparse" / "gramian.json").read_text())
    assert document["settings"]["shade"] == document["settings"]["recipe"]["shade"] == 5
    (tmp_path / "recipe.yaml").write_text("shade: 7\nmethod: wanda\n")
    assert recipes.read_recipe(tmp_path / "recipe.yaml") == {"shade": 7, "method": "wanda"}
    assert recipes.configs_of({"shade": 7})[0].shade == 7
    with pytest.raises(ValueError, match="shade must be a whole number of at least 1 but is 0"):
        shaded(shade=0)
    with pytest.raises(SystemExit, match="2"):
        main(["prune", "model", "--out", "other", "--shade", "0"])
    assert gramian.prune(tiny_model("llama"), WINDOWS, config=shaded("magnitude"), progress=False).settings["shade"] == 3


def test_every_setting_is_documented_and_a_keyword_of_prune():
    documented = inspect.getdoc(gramian.prune)
    for each in settings_of(PruneConfig):
        assert each.name in inspect.signature(gramian.prune).parameters
        assert f"\n{each.name} : " in documented
    assert {each.name for each in fields(PruneConfig)}.isdisjoint(each.name for each in fields(RunConfig))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"method": "l0", "ratio": 0.2}, "ratio=0.2 does not go with 'l0', which zeroes single weights: give it sparsity="),
        ({"method": "flap", "sparsity": 0.5}, "sparsity=0.5 does not go with 'flap', .*: give it ratio="),
        ({"method": "magic"}, "no method 'magic'; there are fistapruner, "),
        ({"method": "sparsgpt"}, r"no method 'sparsgpt' \(did you mean 'sparsegpt'\?\); there are fistapruner, "),
        ({"method": "L0"}, r"no method 'L0' \(did you mean 'l0'\?\); there are"),
        ({"options": {"stpes": 3}, "method": "l0"}, r"l0_admm has no option 'stpes' \(did you mean 'steps'\?\); it has steps"),
        (
            {"options": {"progress": True}, "method": "l0"},
            "l0_admm has no option 'progress'; it has steps, first, last, stage$",
        ),
        ({"options": {"steps": 2.5}, "method": "l0"}, "steps must be a whole number of at least 1 but is 2.5"),
        ({"options": {"steps": True}, "method": "l0"}, "steps must be a whole number of at least 1 but is True"),
        ({"options": {"steps": "many"}, "method": "l0"}, "steps must be a whole number of at least 1 but is 'many'"),
        ({"options": {"last": float("inf")}, "method": "l0"}, r"last must be in \(0, inf\) but is inf"),
        ({"options": {"tolerance": float("inf")}}, r"tolerance must be in \[0, inf\) but is inf"),
        ({"options": {"tolerance": float("nan")}}, r"tolerance must be in \[0, inf\) but is nan"),
        ({"options": {"tolerance": "small"}}, r"tolerance must be a number in \[0, inf\) but is 'small'"),
        ({"options": {"tolerance": float("inf")}, "method": "fistapruner-printed"}, r"tolerance must be in \[0, inf\)"),
        ({"options": {"seed": 0.5}, "method": "random"}, "seed must be a whole number of at least 0 but is 0.5"),
        ({"options": {"draws": 0}, "method": "ntk-sap"}, "draws .* but .* 0"),
        ({"method": "wanda", "calibrate_on": "dense", "target_blend": 0.5}, "target_blend=0.5 does not go with target='own'"),
        ({"method": "wanda", "jobs": 2}, "jobs=2 needs calibrate_on='dense'"),
        ({"method": "magnitude", "damping": 0.1}, "damping=0.1 changes nothing"),
        ({"method": "numerical", "damping": "auto"}, "damping='auto' does not go with 'numerical'"),
        ({"sparsity": 1.0}, "sparsity must be a sparsity in"),
        ({"sparsity": True}, "sparsity must be a sparsity in"),
        ({"sparsity": {}}, "sparsity must be a sparsity in"),
        ({"sparsity": {"(": 0.5}}, "sparsity must be a sparsity in"),
        ({"sparsity": "0:4"}, "sparsity must be a sparsity in"),
        ({"blocks": "4-30"}, "blocks must be a range of blocks"),
        ({"blocks": slice(0, 4, 2)}, "blocks must be a range of blocks"),
        ({"include": "("}, "include must be a regular expression but is '\\('"),
        ({"refit": True}, "refit must be one of none, support"),
        ({"method": "flap", "refit": "support"}, "refit='support' does not go with 'flap'"),
        ({"heads": "some", "method": "flap"}, "heads must be one of groups, per_kv_group"),
        ({"ratio": float("nan"), "method": "flap"}, "ratio must be a number above 0 and below 1"),
        ({"method": "flap", "swap_search": True}, "swap_search=True needs the other weights to be solved for"),
        ({"method": "flap", "refit_producers": True}, "refit_producers=True needs calibrate_on='pruned'"),
    ],
)
def test_what_cannot_be_is_refused(given, message):
    with pytest.raises(ValueError, match=message) as caught:
        PruneConfig(**given)
    assert len(str(caught.value).splitlines()) == 1


def test_a_method_fills_in_what_is_not_given():
    filled = PruneConfig("l0").completed()
    assert (filled["target"], filled["target_blend"], filled["damping"], filled["calibrate_on"]) == (
        "model",
        0.5,
        "auto",
        "pruned",
    )
    assert "ratio" not in filled and filled["sparsity"] == 0.5 and filled["options"]["steps"] > 0
    assert PruneConfig("l0", damping=0.1).own("damping") == 0.1
    units = PruneConfig("flap").completed()
    assert (units["ratio"], units["allocation"], units["compensate"], units["heads"]) == (0.2, "score", True, "groups")
    assert "sparsity" not in units
    json.dumps([filled, units])


def test_a_pattern_says_how_it_is_met():
    assert PruneConfig("magnitude", sparsity=TopK(0.5, per_row=True)).own("per_row") is True
    assert PruneConfig("wanda", sparsity=TopK(0.5)).own("per_row") is False
    assert PruneConfig("wanda").own("per_row") is True


def test_a_name_that_is_no_setting():
    with pytest.raises(
        TypeError, match=r"prune\(\) has no setting 'sparsty' \(did you mean 'sparsity'\?\); there are method, sparsity"
    ):
        gramian.prune(tiny_model("llama"), WINDOWS, "wanda", sparsty=0.5)
    with pytest.raises(ValueError, match="config is given, and so is method, refit"):
        gramian.prune(tiny_model("llama"), WINDOWS, "wanda", config=PruneConfig(), refit="support")
