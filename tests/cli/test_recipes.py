"""`gramian prune --recipe`: settings from a file, and from a saved model whose run they repeat."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import pytest
from command_line import FAST, call, failure, model_fixture, no_network_fixture, short_builtin_text_fixture, zeros  # noqa: F401

RECIPE = """
method: sparsegpt
sparsity: 2:4
options: {block: 16}
include: mlp
samples: 4
length: 32
heldout: 2
"""


@pytest.fixture(name="folder", autouse=True)
def folder_fixture(tmp_path, monkeypatch) -> None:
    """Commands run in an empty directory."""
    monkeypatch.chdir(tmp_path)


def digest(folder: str) -> str:
    return sha256(Path(folder, "model.safetensors").read_bytes()).hexdigest()


def settings_of(folder: str) -> dict:
    return json.loads(Path(folder, "gramian.json").read_text())["settings"]


def test_a_file_is_as_good_as_options(model):
    Path("recipe.yaml").write_text(RECIPE)
    options = ["--method", "sparsegpt", "--sparsity", "2:4", "--set", "block=16", "--include", "mlp"]
    assert call("prune", model, "--out", "one", *FAST, *options, "--no-perplexity") == 0
    assert call("prune", model, "--out", "two", "--recipe", "recipe.yaml", "--no-perplexity") == 0
    assert digest("one") == digest("two")
    assert settings_of("two")["sparsity"] == "2:4" and settings_of("one")["recipe"] == settings_of("two")["recipe"]


@pytest.mark.parametrize(
    "options",
    [
        ["--method", "wanda", "--sparsity-of", "mlp=2:4", "--sparsity-of", "*=0.25", "--blocks", "1:", "--no-per-row"],
        ["--method", "l0", "--set", "steps=20", "--damping", "0.1", "--seed", "1"],
        ["--method", "numerical", "--ratio", "0.3", "--set", "score=newton", "--set", "penalty=inf", "--pad"],
    ],
)
@pytest.mark.parametrize("place", ["one", "one/gramian.json"])
def test_a_saved_model_is_the_recipe_of_its_run(place, options, model):
    assert call("prune", model, "--out", "one", *FAST, *options, "--no-perplexity") == 0
    assert call("prune", model, "--out", "two", "--recipe", place, "--no-perplexity") == 0
    assert digest("one") == digest("two")
    assert settings_of("one")["recipe"] == settings_of("two")["recipe"]


def test_an_option_wins_over_the_recipe(model):
    Path("recipe.yaml").write_text(RECIPE)
    args = ["prune", model, "--recipe", "recipe.yaml", "--no-perplexity"]
    assert call(*args, "--out", "more", "--sparsity", "0.75", "--set", "damping=0.1") == 0
    assert min(part for name, part in zeros(Path("more")).items() if "mlp" in name) >= 0.75
    assert settings_of("more")["options"] == {"damping": 0.1, "block": 16}  # one option of the method leaves the others
    assert call(*args, "--out", "other", "--method", "wanda") == 0
    assert settings_of("other")["method"] == "wanda" and settings_of("other")["options"] == {}  # `block` was another method's
    assert settings_of("other")["sparsity"] == "2:4" and settings_of("other")["include"] == "mlp"


def test_rules_in_a_file(model):
    Path("recipe.yaml").write_text("method: wanda\nsparsity:\n  down_proj: 2:4\n  mlp: 0.75\n  '*': 0.25\n")
    assert call("prune", model, "--out", "sparse", *FAST, "--recipe", "recipe.yaml", "--no-perplexity") == 0
    for name, part in zeros(Path("sparse")).items():
        assert part == (0.5 if "down_proj" in name else 0.75 if "mlp" in name else 0.25)


def test_json_is_read_too(model):
    Path("recipe.json").write_text(json.dumps({"method": "magnitude", "sparsity": "1:2", "samples": 4, "length": 32}))
    assert call("prune", model, "--out", "sparse", "--recipe", "recipe.json", "--no-perplexity") == 0
    assert settings_of("sparse")["pattern"] == "1:2"


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("sparsty: 0.5", 1, "recipe.yaml has a setting 'sparsty', which there is not (did you mean 'sparsity'?)"),
        ("target-blend: 0.5\nmethod: l0", 1, "did you mean 'target_blend'?"),
        ("zzz: 0.5", 1, "has a setting 'zzz', which there is not; there are method, sparsity"),
        ("[1, 2]", 1, "recipe.yaml is no recipe"),
        ("", 1, "recipe.yaml is no recipe"),
        ("a: [", 1, "recipe.yaml cannot be read as a recipe"),
        ("method: !!python/name:os.system", 1, "recipe.yaml cannot be read as a recipe"),
        ("method: magic", 2, "no method 'magic'"),
        ("sparsity: 2", 2, "sparsity must be a sparsity in [0, 1), a pattern such as 2:4"),
        ("samples: 0", 2, "samples must be a whole number of at least 1 but is 0"),
        ("options: {steps: 3}", 2, "fistapruner has no option 'steps'"),
        ("method: l0\nratio: 0.5", 2, "--ratio 0.5 does not go with 'l0'"),
    ],
)
def test_what_a_recipe_may_not_say(text, code, message, model, capsys):
    Path("recipe.yaml").write_text(text)
    assert call("prune", model, "--out", "sparse", "--recipe", "recipe.yaml") == code
    line = capsys.readouterr().err.splitlines()[-1]
    assert message in line and "error: " in line
    assert [path.name for path in Path().iterdir()] == ["recipe.yaml"]


def test_a_recipe_that_is_not_there(model, capsys):
    Path("empty").mkdir()
    for place in ("missing.yaml", "empty"):
        assert f"no recipe '{place}" in failure(capsys, "prune", model, "--out", "sparse", "--recipe", place)
    Path("gramian.json").write_text('{"settings": 3}')
    assert "gramian.json is no recipe" in failure(capsys, "prune", model, "--out", "sparse", "--recipe", "gramian.json")
