"""Recipes: what is written is read again, and what is no recipe is refused."""

from __future__ import annotations

import json

import pytest

from gramian.adapters import PruneConfig
from gramian.adapters.config.recipes import configs_of, read_recipe, recipe_of
from gramian.adapters.config.run_config import RunConfig
from gramian.solvers import NM, TopK

CONFIGS = [
    PruneConfig(),
    PruneConfig("l0", sparsity="2:4", options={"steps": 20}, include="mlp", blocks=slice(1, None)),
    PruneConfig("wanda", sparsity={"mlp": 0.6, "q": NM(2, 4), "*": 0.5}, per_row=False, refit="support"),
    PruneConfig("magnitude", sparsity=TopK(0.25, per_row=True)),
    PruneConfig("numerical", ratio=0.3, swap_search=True, compensate=True, heads="per_kv_group", damping=0.1),
]


@pytest.mark.parametrize("config", CONFIGS)
def test_what_is_written_is_read_again(config, tmp_path):
    texts = RunConfig(samples=5, heldout=0, dtype="bfloat16")
    recipe = recipe_of(config, texts)
    (tmp_path / "gramian.json").write_text(json.dumps({"settings": {"recipe": recipe}}))
    for place in (tmp_path, tmp_path / "gramian.json"):
        again, more = configs_of(read_recipe(place))
        assert recipe_of(again, more) == recipe and more == texts
        assert again.completed() == config.completed() and again.span == config.span
        assert again.amounts.kinds(bool(again.own("per_row"))) == config.amounts.kinds(bool(config.own("per_row")))


def test_yaml_reads_patterns_and_ranges_as_they_are_written(tmp_path):
    """YAML 1.1 takes 2:4 for a number of base 60."""
    (tmp_path / "recipe.yaml").write_text(
        "method: l0\nsparsity: 2:4\nblocks: 4:30\ndamping: 0.1\nsamples: 8\noptions:\n  steps: 20\n"
    )
    found = read_recipe(tmp_path / "recipe.yaml")
    assert found == {
        "method": "l0", "sparsity": "2:4", "blocks": "4:30", "damping": 0.1, "samples": 8, "options": {"steps": 20},
    }  # fmt: skip
    config, texts = configs_of(found)
    assert config.span == slice(4, 30) and texts.samples == 8


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("recipe.yaml", "sparsty: 0.5", "has a setting 'sparsty', which there is not .did you mean 'sparsity'"),
        ("recipe.yaml", "- one\n- two", "is no recipe: expected names of settings"),
        ("recipe.yaml", "method: [", "cannot be read as a recipe"),
        ("recipe.yaml", "method: !!python/object/apply:os.getcwd []", "cannot be read as a recipe"),
        ("gramian.json", '{"settings": {}}', "is no recipe"),
        ("gramian.json", "{", "cannot be read as a recipe"),
    ],
)
def test_what_is_no_recipe(name, text, message, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        read_recipe(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


def test_a_recipe_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="no recipe"):
        read_recipe(tmp_path / "recipe.yaml")
    with pytest.raises(FileNotFoundError, match="no recipe"):
        read_recipe(tmp_path)
