"""Shrunk models saved in three forms and loaded again, by stock classes where that is promised."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rounding import rounding_of
from safetensors.torch import load_file, save_file
from shrunk_models import GROUPED, generated, logits, uneven, uniform
from structured_models import same_model
from tiny import FAMILIES, SHAPES, VOCABULARY, names_of, tiny_model, tiny_tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, Gemma2ForCausalLM

from gramian.adapters.models.loading import load, storage_dtype
from gramian.adapters.models.own_classes import CODE
from gramian.adapters.models.padding import padded
from gramian.adapters.models.saving import save
from gramian.adapters.models.shrink import count_parameters, shrink_model
from gramian.adapters.models.unit_groups import unit_groups_of


def shrunk(model_type: str, choose):
    model = tiny_model(model_type)
    shrink_model(model, choose(model))
    return model


def channels_only(model):
    return {name: units for name, units in uniform(model).items() if name in names_of(model, "channels")}


def stated(model) -> dict:
    """What the configuration says; the library notes the class of a model there when it saves it."""
    return {key: value for key, value in model.config.to_dict().items() if key != "architectures"}


# Widths that the configuration states


@pytest.mark.parametrize("model_type", FAMILIES)
def test_uniform_widths_load_with_stock_classes(model_type, tmp_path):
    model = shrunk(model_type, uniform if model_type in GROUPED else channels_only)
    out = save(model, tiny_tokenizer(), tmp_path / "model", report={"method": "none"})
    assert not (out / CODE).exists() and json.loads((out / "gramian.json").read_text())["method"] == "none"
    stock = AutoModelForCausalLM.from_pretrained(out)
    assert type(stock) is type(model) and unit_groups_of(stock) == unit_groups_of(model)
    assert logits(stock).equal(logits(model)) and generated(stock)[0].equal(generated(model)[0])
    loaded, tokenizer = load(out)
    assert logits(loaded).equal(logits(model)) and tokenizer is not None
    model.save_pretrained(tmp_path / "by hand")  # the configuration was brought up to date by shrink
    assert logits(AutoModelForCausalLM.from_pretrained(tmp_path / "by hand")).equal(logits(model))


def test_a_process_without_this_package_loads_the_first_and_the_third_form(tmp_path):
    expected = {}
    for model_type, choose, pad in (("gemma3_text", uniform, False), ("opt", uneven, True), ("mistral", uneven, True)):
        model = shrunk(model_type, choose)
        out = save(model, None, tmp_path / model_type, pad=pad)
        expected[str(out)] = (logits(model), rounding_of(model, logits), generated(model)[0])
    torch.save(expected, tmp_path / "expected")
    script = (
        "import sys, torch; from transformers import AutoModelForCausalLM\n"
        f"for path, (logits, slack, tokens) in torch.load({str(tmp_path / 'expected')!r}).items():\n"
        "    model = AutoModelForCausalLM.from_pretrained(path)\n"
        f"    ids = torch.arange(40).view(2, 20) * 7 % {VOCABULARY}\n"
        "    assert (model(input_ids=ids).logits - logits).abs().max() <= slack, path\n"
        "    mask = torch.ones(2, 20, dtype=torch.int64); mask[1, :3] = 0\n"
        "    done = model.generate(ids, attention_mask=mask, max_new_tokens=6, min_new_tokens=6, do_sample=False)\n"
        "    assert done.equal(tokens), path\n"
        "assert not any(name.startswith('gramian') for name in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path)


# Widths recorded beside the configuration


@pytest.mark.parametrize("model_type", FAMILIES)
def test_other_widths_are_recorded_and_load(model_type, tmp_path):
    model = shrunk(model_type, uneven)
    config = stated(model)
    state = torch.get_rng_state()
    out = save(model, tiny_tokenizer(), tmp_path / "model")
    loaded, tokenizer = load(out)
    assert torch.get_rng_state().equal(state)
    assert stated(model) == config
    assert tokenizer is not None and not loaded.training
    assert type(loaded) is type(model) and unit_groups_of(loaded) == unit_groups_of(model) and same_model(loaded, model)
    assert logits(loaded).equal(logits(model)) and generated(loaded)[0].equal(generated(model)[0])
    tied = loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight
    assert tied == model.config.tie_word_embeddings
    with pytest.raises(ValueError, match="pass the argument `trust_remote_code=True`"):  # none is silently wrong
        AutoModelForCausalLM.from_pretrained(out, trust_remote_code=False)
    again = save(loaded, None, tmp_path / "again")
    for name in ("model.safetensors", "config.json", "generation_config.json", CODE):
        assert (out / name).read_bytes() == (again / name).read_bytes(), name


@pytest.mark.parametrize("model_type", ["opt", "gpt2"])
def test_heads_that_are_tied_to_the_hidden_size_are_recorded_even_if_uniform(model_type, tmp_path):
    model = shrunk(model_type, uniform)
    out = save(model, None, tmp_path / "model")
    described = json.loads((out / "config.json").read_text())["uneven_units"]
    consumers = {name.partition("0.")[2] for name in names_of(model, "heads")[:1]}
    assert {each["consumer"] for each in described} == consumers  # channels are stated as stock classes read them
    assert logits(load(out)[0]).equal(logits(model))


def test_heads_that_do_not_divide_the_hidden_size_are_recorded(tmp_path):
    config = AutoConfig.for_model("llama", **SHAPES["llama"] | {"num_key_value_heads": 4}, vocab_size=VOCABULARY)
    model = AutoModelForCausalLM.from_config(config).eval()
    shrink_model(model, {name: [0, 1, 3] for name in names_of(model, "heads")})
    out = save(model, None, tmp_path / "model")
    assert logits(load(out)[0]).equal(logits(model))
    wide = AutoModelForCausalLM.from_pretrained(save(model, None, tmp_path / "wide", pad=True))
    assert wide.config.num_attention_heads == 4
    torch.testing.assert_close(logits(wide), logits(model), rtol=0, atol=rounding_of(model, logits))


def test_a_loaded_model_can_be_shrunk_on(tmp_path):
    model = shrunk("qwen3", uneven)
    loaded, _ = load(save(model, None, tmp_path / "model"))
    keep = {names_of(model, "channels")[-1]: [0, 3], names_of(model, "heads")[1]: [1]}
    shrink_model(model, keep)
    shrink_model(loaded, keep)
    assert logits(loaded).equal(logits(model))
    assert logits(load(save(loaded, None, tmp_path / "further"))[0]).equal(logits(model))


def test_storage_dtype_and_its_rounding(tmp_path):
    model = shrunk("gemma3_text", uneven)
    model.config.dtype = torch.bfloat16
    out = save(model, None, tmp_path / "model")
    assert {tensor.dtype for tensor in load_file(out / "model.safetensors").values()} == {torch.bfloat16}
    loaded, _ = load(out)
    assert storage_dtype(loaded) == torch.bfloat16 and loaded.dtype == torch.float32
    exact, _ = load(out, dtype="float32")
    assert all(weight.equal(weight.bfloat16().float()) for weight in exact.parameters()) and same_model(exact, loaded)


def test_load_model_and_save_model_know_the_record(tmp_path):
    model = shrunk("opt", uneven)
    out = save(model, None, tmp_path / "model")
    assert (out / CODE).exists() and same_model(load(out)[0], model)
    save(tiny_model("opt"), None, out, overwrite=True)
    assert not (out / CODE).exists() and same_model(load(out)[0], tiny_model("opt"))


# Padded with zeros


@pytest.mark.parametrize("choose", [uneven, uniform])
@pytest.mark.parametrize("model_type", FAMILIES)
def test_padding_is_exact_and_loads_with_stock_classes(model_type, choose, tmp_path):
    model = shrunk(model_type, choose)
    before, config, widths = copy.deepcopy(model.state_dict()), stated(model), unit_groups_of(model)
    out = save(model, tiny_tokenizer(), tmp_path / "model", pad=True, report={"pad": True})
    assert not (out / CODE).exists() and (out / "gramian.json").exists()
    stock = AutoModelForCausalLM.from_pretrained(out)
    slack = rounding_of(model, logits)
    torch.testing.assert_close(logits(stock), logits(model), rtol=0, atol=slack)
    ours, theirs = generated(stock), generated(model)
    assert ours[0].equal(theirs[0])
    torch.testing.assert_close(ours[1], theirs[1], rtol=0, atol=slack)
    assert all(tensor.equal(before[name]) for name, tensor in model.state_dict().items())
    assert stated(model) == config and unit_groups_of(model) == widths  # the model itself remains narrow


def test_padding_is_no_wider_than_the_stock_class_needs():
    model = tiny_model("llama")
    heads, mlp = names_of(model, "heads"), names_of(model, "channels")
    keep = {heads[0]: [0, 2], heads[1]: [3], mlp[0]: range(20), mlp[1]: range(7)}
    shrink_model(model, keep)
    wide = padded(model)
    assert {unit_group.units for name, unit_group in unit_groups_of(wide).items() if name in mlp} == {20}
    assert {(unit_group.units, unit_group.groups) for name, unit_group in unit_groups_of(wide).items() if name in heads} == {
        (2, 2)
    }
    assert wide.config.intermediate_size == 20 and model.config.intermediate_size == 48
    assert count_parameters(wide) > count_parameters(model)
    # a head of another block has no place in the zeros: both groups of block 1 exist, one is empty
    values = wide.model.layers[1].self_attn.v_proj.weight
    assert values[:8].equal(model.model.layers[1].self_attn.v_proj.weight) and not values[8:].any()
    assert wide.get_input_embeddings().weight is model.get_input_embeddings().weight


def test_a_model_that_is_wide_already_is_padded_by_nothing():
    model = tiny_model("qwen2")
    assert same_model(padded(model), model) and padded(model).config.to_dict() == model.config.to_dict()


# Refusals


def described(change):
    """Change what the configuration says of widths."""

    def act(folder):
        document = json.loads((folder / "config.json").read_text())
        change(document)
        (folder / "config.json").write_text(json.dumps(document))

    return act


def tensors(change):
    def act(folder):
        held = load_file(folder / "model.safetensors")
        change(held)
        save_file(held, folder / "model.safetensors", metadata={"format": "pt"})

    return act


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    return save(shrunk("llama", uneven), None, tmp_path_factory.mktemp("sound") / "model")


def layer(number=0, **widths):
    """Change the widths of a layer."""
    return described(lambda document: document["per_layer_config"].setdefault(str(number), {}).update(widths))


def units(**values):
    """Change what is said of where units are."""
    return described(lambda document: document["uneven_units"][0].update(values))


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (lambda f: (f / "model.safetensors").unlink(), FileNotFoundError, "no weights"),
        (
            described(lambda document: document.pop("per_layer_config")),
            ValueError,
            "in the weights but .* by the configuration",
        ),
        (described(lambda document: document.pop("uneven_units")), ValueError, "uneven_units .* describe no units"),
        (described(lambda document: document.update(uneven_units=[])), ValueError, "uneven_units .* describe no units"),
        (described(lambda document: document.update(uneven_units=[3])), ValueError, "uneven_units .* describe no units"),
        (described(lambda document: document.update(per_layer_config=[3])), ValueError, "cannot be loaded"),
        (units(size="4"), ValueError, "uneven_units .* describe no units"),
        (units(size=-1), ValueError, "where the configuration builds"),
        (units(blocks="nothing"), ValueError, "nothing"),
        (units(counts={"training": "units"}), ValueError, "training of LlamaAttention is no number"),
        (units(counts={"forward": "units"}), ValueError, "forward of LlamaAttention is no number"),
        (units(counts={"num_key_value_groups": "all"}), ValueError, "all"),
        (units(counts={"config.hidden_size": "all"}), ValueError, "all"),
        (units(consumer="self_attn.nothing"), ValueError, "nothing"),
        (units(producers={"self_attn.nothing": "unit"}), ValueError, "nothing"),
        (units(producers={"self_attn.q_proj": 3}), ValueError, "cannot be loaded"),
        (units(producers={"self_attn.q_proj": "row"}), ValueError, "row"),
        (
            units(producers={"mlp.down_proj": "unit unit unit"}),
            ValueError,
            "outputs are stated where the configuration builds 32",
        ),
        (units(owner="self_attn.nothing"), ValueError, "nothing"),
        (layer(intermediate_size="3"), ValueError, "intermediate_size' expected int"),
        (layer(intermediate_size=True), ValueError, "expected a? ?(int|whole number)"),
        (layer(intermediate_size=None), ValueError, "intermediate_size' expected int"),
        (layer(intermediate_size=49), ValueError, "49 outputs are stated where the configuration builds 48"),
        (layer(intermediate_size=0), ValueError, "0, expected a whole number"),
        (layer(num_attention_heads=3, num_key_value_heads=2), ValueError, "cannot have 3 units in 2 groups"),
        (layer(7, intermediate_size=3), ValueError, "layer indices"),
        (layer(intermediate_size=3), ValueError, "in the weights but"),
        (tensors(lambda held: held.pop("model.norm.weight")), ValueError, "weights are missing: model.norm.weight"),
        (tensors(lambda held: held.update({"odd.weight": torch.ones(1)})), ValueError, "odd.weight are weights of no module"),
        (tensors(lambda held: held["model.norm.weight"].fill_(float("nan"))), ValueError, "holds NaN"),
    ],
)
def test_damaged_directories(damage, error, message, sound, tmp_path):
    """Code of others beside it is of no consequence."""
    out = Path(shutil.copytree(sound, tmp_path / "model"))
    (out / CODE).write_text("raise SystemExit")
    damage(out)
    with pytest.raises(error, match=message) as caught:
        load(out)
    assert str(out) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("pad", [False, True])
def test_what_cannot_be_saved_changes_nothing(pad, tmp_path):
    model = shrunk("llama", uneven)
    out = save(tiny_model("llama"), None, tmp_path / "model")
    with pytest.raises(FileExistsError):
        save(model, None, out, pad=pad)
    model.config.intermediate_size = 4  # less than the model has
    with pytest.raises(ValueError, match="which must state no less"):
        save(model, None, out, pad=pad, overwrite=True)
    assert same_model(load(out)[0], tiny_model("llama")) and [path.name for path in tmp_path.iterdir()] == ["model"]


def test_head_sizes_other_than_the_configuration_s(tmp_path):
    model = shrunk("qwen3", uneven)
    model.config.head_dim = 8
    with pytest.raises(ValueError, match="is nothing that the configuration describes"):
        save(model, None, tmp_path / "model")


def test_other_families_are_saved_as_ever_and_need_no_padding(tmp_path):
    model = tiny_model("gemma2")
    for pad in (False, True):
        out = save(model, None, tmp_path / f"model {pad}", pad=pad)
        assert same_model(load(out)[0], model) and not (out / CODE).exists()


def test_widths_that_the_configuration_could_state_and_does_not_load_too(tmp_path):
    """Of a family whose units are found."""
    model = tiny_model("gemma2")
    shrink_model(model, {f"model.layers.{layer}.mlp.down_proj": range(40) for layer in range(3)})
    model.config.intermediate_size = 48  # as if it could not say so
    out = save(model, None, tmp_path / "model")
    document = json.loads((out / "config.json").read_text())
    assert document["per_layer_config"] == {str(layer): {"intermediate_size": 40} for layer in range(3)}
    assert [each["consumer"] for each in document["uneven_units"]] == ["mlp.down_proj"]
    assert same_model(load(out)[0], model) and type(model) is Gemma2ForCausalLM
