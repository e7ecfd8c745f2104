"""How much `gramian prune` removes, and where: numbers, patterns, rules by name, ranges of blocks; the wrong kind is named."""

from __future__ import annotations

import json

import pytest
from command_line import FAST, call, failure, model_fixture, no_network_fixture, short_builtin_text_fixture, zeros  # noqa: F401


def prune(model, out, *options) -> int:
    return call("prune", model, "--out", out, *FAST, "--no-perplexity", "--method", "wanda", *options)


def report_of(folder) -> dict:
    return json.loads((folder / "gramian.json").read_text())


def test_rules_give_operators_their_own_amounts_and_leave_the_rest_dense(model, tmp_path, capsys):
    out = tmp_path / "sparse"
    assert prune(model, out, "--sparsity-of", "mlp.down=2:4", "--sparsity-of", r"mlp\.(up|down)=0.75") == 0
    pruned = {name: part for name, part in zeros(out).items() if part}
    expected = {"down_proj": 0.5, "up_proj": 0.75}  # the first rule that matches holds
    assert pruned == {f"model.layers.{block}.mlp.{name}.weight": part for block in (0, 1) for name, part in expected.items()}
    report = report_of(out)
    assert len(report["operators"]) == 4 and len(report["dense"]) == 10
    assert "model.layers.0.self_attn.q_proj" in report["dense"]
    assert {row["pattern"] for row in report["operators"]} == {"2:4", "75% per row"}
    assert report["settings"]["sparsity"] == {"mlp.down": "2:4", r"mlp\.(up|down)": 0.75}
    assert "10 more operators remain dense" in capsys.readouterr().out


def test_the_plain_amount_is_for_the_rest(model, tmp_path):
    assert prune(model, tmp_path / "sparse", "--sparsity-of", "mlp=0.75", "--sparsity", "0.25") == 0
    assert {part for name, part in zeros(tmp_path / "sparse").items() if "mlp" in name} == {0.75}
    assert {part for name, part in zeros(tmp_path / "sparse").items() if "mlp" not in name} == {0.25}
    assert report_of(tmp_path / "sparse")["dense"] == []


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (["mpl=0.5"], "the rule 'mpl' of sparsity changes nothing, as it matches no operator; names look like 'model.layers."),
        (["mlp=0.5", "down_proj=2:4"], "the rule 'down_proj' of sparsity changes nothing, as an earlier rule takes"),
    ],
)
def test_a_rule_that_changes_nothing_is_an_error(rules, message, model, tmp_path, capsys):
    options = [word for rule in rules for word in ("--sparsity-of", rule)]
    for way in (["--out", tmp_path / "sparse"], ["--dry-run"]):
        assert message in failure(capsys, "prune", model, *FAST, "--method", "wanda", *options, *way)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("rule", ["mlp", "mlp=2", "mlp=half", "=0.5", "(=0.5", "mlp="])
def test_what_is_no_rule_is_bad_usage(rule, model, tmp_path, capsys):
    assert prune(model, tmp_path / "sparse", "--sparsity-of", rule) == 2
    assert f"'{rule}' is not REGEX=S, such as mlp=0.6" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--method", "l0", "--ratio", "0.5"],
            "--ratio 0.5 does not go with 'l0', which zeroes single weights: give it --sparsity",
        ),
        (
            ["--method", "numerical", "--sparsity", "0.5"],
            "--sparsity 0.5 does not go with 'numerical', which removes whole heads and channels: give it --ratio",
        ),
        (["--method", "flap", "--sparsity-of", "mlp=0.5"], "--sparsity-of does not go with 'flap', which removes whole heads"),
    ],
)  # fmt: skip
def test_the_wrong_kind_of_amount_is_named(options, message, model, tmp_path, capsys):
    assert prune(model, tmp_path / "out", *options) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"gramian prune: error: {message}")


def test_a_range_of_blocks_is_for_methods_of_weights_too(model, tmp_path):
    assert prune(model, tmp_path / "sparse", "--blocks", "1:") == 0
    pruned = [name for name, part in zeros(tmp_path / "sparse").items() if part]
    assert len(pruned) == 7 and all(name.startswith("model.layers.1.") for name in pruned)
    assert report_of(tmp_path / "sparse")["settings"]["blocks"] == "1:"
