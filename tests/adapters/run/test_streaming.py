"""Checkpoints that are read and written block by block: the same tensors as in memory, a block of memory, all or nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import HELDOUT, WINDOWS, tensors, tiny_model, tiny_tokenizer
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel

from gramian.adapters import PruneConfig, Tokens, load, prune, save
from gramian.adapters.cli.main import main
from gramian.adapters.models.block_lists import blocks_of, blocks_path
from gramian.adapters.resuming import journaled
from gramian.adapters.run.moments import MomentCollector
from gramian.adapters.run.streaming import Stream, Streamed, open_checkpoint

pytestmark = pytest.mark.usefixtures("small_batches", "no_network")
OPTIONS = {"method": "sparsegpt", "calibrate_on": "pruned", "target": "block", "heldout": HELDOUT, "progress": False}


def source(folder: Path, model_type: str, dtype: torch.dtype = torch.float32, shards: str | None = "20KB") -> Path:
    """A saved model, in shards that do not respect blocks."""
    model = tiny_model(model_type)
    model.config.dtype = dtype
    model.generation_config.max_length = 77
    if shards is None:
        save(model, tiny_tokenizer(), folder)
    else:
        model.to(dtype).save_pretrained(folder, max_shard_size=shards)
        tiny_tokenizer().save_pretrained(folder)
        assert len(list(folder.glob("*.safetensors"))) > 2
    return folder


def streamed(folder: Path, out: Path, **options) -> dict:
    return prune(folder, WINDOWS, out=out, **OPTIONS | options).to_dict()


def in_memory(folder: Path, out: Path, **options) -> dict:
    model, tokenizer = load(folder)
    report = prune(model, WINDOWS, **OPTIONS | options).to_dict()
    save(model, tokenizer, out, report=report)
    return report


def stored(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


def without_times(report: dict) -> dict:
    kind = "operators" if "operators" in report else "modules"
    rows = [{key: value for key, value in row.items() if key != "seconds"} for row in report[kind]]
    return {**report, "seconds": None, kind: rows}


@pytest.mark.parametrize(
    ("model_type", "options"),
    [
        ("llama", {"method": "numerical", "ratio": 0.3}),
        ("gemma3_text", {"method": "numerical", "ratio": 0.3, "refit_producers": True, "swap_search": True}),
        ("qwen2", {"method": "flap", "ratio": 0.2}),
        ("gpt2", {"method": "greedy-output", "ratio": 0.3, "options": {"moment": "gaussian"}}),
        ("opt", {"method": "greedy-output", "ratio": 0.3, "options": {"moment": "identity"}}),
        ("llama", {"method": "magnitude-l2", "ratio": 0.2, "allocation": "score"}),
        ("mistral", {"method": "numerical", "ratio": 0.3, "options": {"score": "box"}}),
    ],
)
def test_units_are_removed_as_in_memory(model_type, options, tmp_path):
    folder = source(tmp_path / "source", model_type)
    how = {"calibrate_on": None, "target": None, **options}
    reports = [streamed(folder, tmp_path / "streamed", **how), in_memory(folder, tmp_path / "memory", **how)]
    assert without_times(reports[0]) == without_times(reports[1])
    found, expected = stored(tmp_path / "streamed"), tensors(tmp_path / "memory")
    assert found.keys() == expected.keys() and all(found[name].equal(expected[name]) for name in expected)
    assert {path.name for path in (tmp_path / "streamed").iterdir()} >= {
        path.name for path in (tmp_path / "memory").iterdir()
    } - {"model.safetensors"}
    models = [load(tmp_path / name)[0] for name in ("streamed", "memory")]
    with torch.no_grad():
        assert models[0](input_ids=WINDOWS[:2]).logits.equal(models[1](input_ids=WINDOWS[:2]).logits)


def test_gradients_of_the_whole_model_are_refused(tmp_path):
    folder = source(tmp_path / "source", "llama")
    with pytest.raises(ValueError, match="'tasp' needs gradients of the whole model"):
        prune(folder, WINDOWS, "tasp", out=tmp_path / "out", progress=False)


@pytest.mark.parametrize(
    ("model_type", "dtype", "shards"),
    [
        ("llama", torch.bfloat16, "20KB"), ("gpt2", torch.float32, "20KB"), ("gemma3_text", torch.bfloat16, "20KB"),
        ("opt", torch.float32, None), ("qwen2", torch.float16, None),
    ],
)  # fmt: skip
def test_the_same_bytes_as_in_memory(model_type, dtype, shards, tmp_path):
    """Gemma, GPT-2, OPT and Qwen with their head tied to the embeddings, Llama with one of its own."""
    folder = source(tmp_path / "source", model_type, dtype, shards)
    reports = [streamed(folder, tmp_path / "streamed"), in_memory(folder, tmp_path / "memory")]
    assert without_times(reports[0]) == without_times(reports[1])
    found, expected = stored(tmp_path / "streamed"), tensors(tmp_path / "memory")
    assert found.keys() == expected.keys()
    assert all(found[name].dtype == expected[name].dtype and found[name].equal(expected[name]) for name in expected)
    for name in ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"):
        one, two = (json.loads((tmp_path / place / name).read_text()) for place in ("streamed", "memory"))
        assert one == two, name
    saved = json.loads((tmp_path / "streamed" / "gramian.json").read_text())
    assert {key: saved[key] for key in reports[0]} == json.loads(json.dumps(reports[0]))
    models = [AutoModelForCausalLM.from_pretrained(tmp_path / name) for name in ("streamed", "memory")]
    with torch.no_grad():
        assert models[0](input_ids=WINDOWS[:2]).logits.equal(models[1](input_ids=WINDOWS[:2]).logits)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_report_is_saved_as_it_was_returned(tmp_path):
    """In memory and streamed, where it is written at the very end of a long run."""
    folder = source(tmp_path / "source", "llama")
    report = prune(folder, WINDOWS, "magnitude", out=tmp_path / "streamed", progress=False)
    model, tokenizer = load(folder)
    save(model, tokenizer, tmp_path / "memory", report=report)
    for place in ("streamed", "memory"):
        saved, returned = json.loads((tmp_path / place / "gramian.json").read_text()), json.loads(json.dumps(report.to_dict()))
        assert {*saved["files"], "gramian.json", "report.html"} == {path.name for path in (tmp_path / place).iterdir()}
        load(tmp_path / place)  # which checks them
        assert {key: saved[key] for key in returned if key != "seconds"} == {
            key: returned[key] for key in returned if key != "seconds"
        }


def test_part_of_the_blocks(tmp_path):
    folder = source(tmp_path / "source", "llama", torch.bfloat16)
    options = {"include": r"layers\.0\..*_proj"}
    streamed(folder, tmp_path / "streamed", **options)
    in_memory(folder, tmp_path / "memory", **options)
    found, expected = stored(tmp_path / "streamed"), tensors(tmp_path / "memory")
    assert found.keys() == expected.keys() and all(found[name].equal(expected[name]) for name in expected)
    assert all(tensor.dtype == torch.bfloat16 for tensor in found.values())


def test_names_without_the_model_s_prefix(tmp_path):
    """As some checkpoints of the hub have them."""
    folder = source(tmp_path / "source", "gpt2", shards=None)
    plain = {name.removeprefix("transformer."): tensor for name, tensor in tensors(folder).items()}
    save_file(plain, folder / "model.safetensors", metadata={"format": "pt"})
    streamed(folder, tmp_path / "streamed", method="wanda")
    in_memory(folder, tmp_path / "memory", method="wanda")
    found, expected = stored(tmp_path / "streamed"), tensors(tmp_path / "memory")
    assert found.keys() == expected.keys() and all(found[name].equal(expected[name]) for name in expected)


def resident(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {name: each for name, each in model.named_parameters() if not each.is_meta}


def test_one_block_is_in_memory_at_a_time(tmp_path, monkeypatch):
    folder = source(tmp_path / "source", "llama")
    peaks: list[set[str]] = []
    receive = MomentCollector.receive

    def noted(self, batch, inputs):
        peaks.append({name.split(".")[2] for name in resident(stream.model) if ".layers." in name})
        receive(self, batch, inputs)

    monkeypatch.setattr(MomentCollector, "receive", noted)
    stream = open_checkpoint(folder)
    outside = {name for name, _ in stream.model.named_parameters() if ".layers." not in name}
    assert resident(stream.model).keys() == outside - {"lm_head.weight"}
    how = {name: value for name, value in OPTIONS.items() if name not in ("heldout", "progress")}
    journaled(stream, Tokens(WINDOWS, ""), PruneConfig(**how), out=tmp_path / "out", heldout=HELDOUT, progress=False)
    assert resident(stream.model).keys() == outside - {"lm_head.weight"}
    assert {frozenset(each) for each in peaks} == {frozenset("0"), frozenset("1")}
    assert len(blocks_of(stream.model)) == 2


@pytest.mark.parametrize("when", ["first block", "last block", "finishing"])
def test_after_an_error_nothing_has_changed(when, tmp_path, monkeypatch):
    folder, out = source(tmp_path / "source", "llama"), tmp_path / "out"
    save(tiny_model("opt"), None, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    take, broken = Streamed.acquire, []

    def breaking(self, index):
        block = take(self, index)
        broken.append(index)
        if len(broken) == {"first block": 1, "last block": 2, "finishing": 4}[when]:
            raise RuntimeError("the power fails")
        return block

    monkeypatch.setattr(Streamed, "acquire", breaking)
    with pytest.raises(RuntimeError, match="the power fails"):
        streamed(folder, out, overwrite=True)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "out",
        *["out.journal"] * (when != "first block"),
        "source",
    ]  # where something was done, it is kept to go on from


def spoilt(folder: Path, change) -> None:
    weights = tensors(folder)
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop("model.layers.1.mlp.up_proj.weight"), "weights are missing .* model.layers.1.mlp.up_proj"),
        (lambda weights: weights["model.norm.weight"].fill_(float("nan")), "parameter model.norm.weight holds NaN or Inf"),
        (
            lambda weights: weights.update({"model.norm.weight": torch.ones(3)}),
            r"model.norm.weight is \(3,\) in the weights but \(32,\) by the configuration",
        ),
    ],
)
def test_bad_weights_are_known_before_any_work(change, message, tmp_path):
    folder = source(tmp_path / "source", "llama", shards=None)
    spoilt(folder, change)
    with pytest.raises(ValueError, match=message):
        open_checkpoint(folder)
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_streamed_is_refused(tmp_path):
    folder = source(tmp_path / "source", "qwen2", shards=None)
    (folder / "gramian_widths.json").write_text("{}")
    with pytest.raises(ValueError, match="cannot be streamed: its widths are recorded"):
        streamed(folder, tmp_path / "out")
    with pytest.raises(FileNotFoundError, match="no such directory"):
        streamed(tmp_path / "nothing", tmp_path / "out")


def test_a_head_of_its_own_is_kept_although_the_configuration_ties_it(tmp_path, caplog):
    """As stock classes load it; in memory and streamed alike."""
    folder = source(tmp_path / "source", "qwen2", shards=None)
    spoilt(folder, lambda weights: weights.update({"lm_head.weight": weights["model.embed_tokens.weight"] + 1}))
    head = tensors(folder)["lm_head.weight"]
    streamed(folder, tmp_path / "streamed")
    assert "lm_head.weight and model.embed_tokens.weight are one by the configuration but differ" in caplog.text
    in_memory(folder, tmp_path / "memory")
    found, expected = stored(tmp_path / "streamed"), tensors(tmp_path / "memory")
    assert found.keys() == expected.keys() and all(found[name].equal(expected[name]) for name in expected)
    for place in ("streamed", "memory"):
        assert AutoModelForCausalLM.from_pretrained(tmp_path / place).lm_head.weight.equal(head)


def test_a_head_of_another_class_is_not_lost(tmp_path):
    model = tiny_model("qwen2")
    model.config.tie_word_embeddings = True
    classifier = AutoModelForSequenceClassification.from_config(model.config)
    classifier.save_pretrained(tmp_path / "source")
    with pytest.raises(ValueError, match=r"score\.weight are weights of no module of Qwen2ForCausalLM: they would be lost"):
        streamed(tmp_path / "source", tmp_path / "out")


def test_what_appears_meanwhile_is_not_overwritten(tmp_path, monkeypatch):
    folder, out = source(tmp_path / "source", "llama"), tmp_path / "out"
    save_stream = Stream.save

    def late(self, *args):
        out.mkdir()
        (out / "precious.txt").write_text("x")
        return save_stream(self, *args)

    monkeypatch.setattr(Stream, "save", late)
    with pytest.raises(FileExistsError, match="was empty when the work began") as caught:
        streamed(folder, out)
    assert (out / "precious.txt").read_text() == "x"
    kept = Path(str(caught.value).split(" is in ")[1])
    assert stored(kept).keys() == stored(folder).keys() and AutoModelForCausalLM.from_pretrained(kept) is not None


def test_one_file_goes_before_an_index_and_masks_have_no_dtype_of_weights(tmp_path):
    """As the library reads a folder that holds both; and the first tensor may be a mask."""
    folder = source(tmp_path / "source", "llama", shards=None)
    config = json.loads((folder / "config.json").read_text())
    for key in ("dtype", "torch_dtype"):
        config.pop(key, None)
    (folder / "config.json").write_text(json.dumps(config))
    spoilt(folder, lambda weights: weights.update({"a.position_ids": torch.ones(3, dtype=torch.uint8)}))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"other": "other.safetensors"}}))
    streamed(folder, tmp_path / "out")
    in_memory(folder, tmp_path / "whole")
    assert all(value.equal(stored(tmp_path / "whole")[name]) for name, value in stored(tmp_path / "out").items())
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(
        ValueError, match=r"source/model\.safetensors\.index\.json is no index of weights: KeyError: 'weight_map'"
    ):
        streamed(folder, tmp_path / "other")


def test_on_the_command_line(tmp_path, capsys):
    folder, out = source(tmp_path / "source", "llama"), tmp_path / "out"
    (tmp_path / "text.txt").write_text("A line of text, and another one of about the same length.\n" * 40)
    arguments = ["--calibration", str(tmp_path / "text.txt"), "--samples", "3", "--length", "32", "--method", "wanda"]
    assert main(["prune", str(folder), "--out", str(out), "--memory", "stream", *arguments]) == 0
    assert f"saved to {out}" in capsys.readouterr().out
    report = json.loads((out / "gramian.json").read_text())
    assert report["sparsity"] == 0.5 and report["model"] == str(folder)
    assert (
        main(["prune", str(folder), "--out", str(tmp_path / "off"), "--memory", "offload", "--no-perplexity", *arguments]) == 0
    )
    found, expected = stored(out), tensors(tmp_path / "off")
    assert all(found[name].equal(expected[name]) for name in expected)
    for extra in (["--pad", "--method", "flap"], ["--jobs", "2"], ["--calibration", "self"], ["--evaluate", "text.txt"]):
        with pytest.raises(SystemExit, match="2"):
            main(["prune", str(folder), "--out", str(tmp_path / "no"), "--memory", "stream", *extra])
        assert f"{extra[0]}" in capsys.readouterr().err


def test_the_skeleton_is_the_model(tmp_path):
    """Buffers that no checkpoint holds, such as rotary frequencies, are computed as when it is loaded."""
    folder = source(tmp_path / "source", "gemma3_text")
    model, _ = load(folder)
    stream = open_checkpoint(folder)
    buffers, expected = dict(stream.model.named_buffers()), dict(model.named_buffers())
    assert buffers.keys() == expected.keys() and all(buffers[name].equal(expected[name]) for name in expected)
    assert not stream.model.training and blocks_path(stream.model) == "model.layers"
    with stream.blocks as blocks:
        for name, parameter in blocks.acquire(1).named_parameters():
            assert parameter.equal(model.model.layers[1].get_parameter(name)) and not parameter.requires_grad
    assert all(parameter.is_meta for parameter in stream.model.model.layers.parameters())
