"""Models that are damaged, or that mean harm: refused in one line that names them, in bounded time and memory, whole or
streamed; what is outside of their directory is not read, and nothing of them is run.

Every case is a forked process. Some run always, and all of them with `-m slow`."""

from __future__ import annotations

import json
import os
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from forked_runs import GIB, ended, forked
from safetensors.torch import load_file, save_file
from tiny import tiny_model, tiny_tokenizer

from gramian.adapters import save
from gramian.adapters.models import tokenizer_trials

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]
Damage = Callable[[Path], object]
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
UP = "model.layers.1.mlp.up_proj.weight"
SECONDS = 60
TEXTS = ["--calibration", "text.txt", "--samples", "4", "--length", "24", "--heldout", "0", "--method", "wanda"]
REFUSED, TAKEN, EITHER = "refused", "taken", "either"
CODE = """
import os
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM
Path(os.environ["RAN"]).write_text("x")
class Config(LlamaConfig): pass
class Model(LlamaForCausalLM): pass
class Tokenizer: pass
"""
CASES: dict[str, tuple[Damage, str]] = {}
SAMPLE: set[str] = set()


def case(name: str, damage: Damage, outcome: str = REFUSED, sample: bool = False) -> None:
    assert name not in CASES
    CASES[name] = damage, outcome
    SAMPLE.update([name] if sample else [])


# -- what the cases are made of ----------------------------------------------------------------------------------------


def edited(file: str, **changed: Any) -> Damage:
    """Settings of a JSON file changed; None removes one, and `null` is what JSON calls so."""

    def damage(model: Path) -> None:
        document = json.loads((model / file).read_text()) | changed
        document = {key: None if value == "null" else value for key, value in document.items() if value is not None}
        (model / file).write_text(json.dumps(document))

    return damage


def written(file: str, content: bytes | str) -> Damage:
    return lambda model: (model / file).write_bytes(content if isinstance(content, bytes) else content.encode())


def weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Damage:
    def damage(model: Path) -> None:
        held = load_file(model / WEIGHTS)
        change(held)
        save_file(held, model / WEIGHTS, metadata={"format": "pt"})

    return damage


def header(change: Callable[[dict[str, Any]], Any], length: int | None = None) -> Damage:
    """The header of the weights changed, or replaced by the bytes that `change` returns, under a length of its own."""

    def damage(model: Path) -> None:
        content = (model / WEIGHTS).read_bytes()
        (end,) = struct.unpack("<Q", content[:8])
        said = json.loads(content[8 : 8 + end])
        new = change(said)
        text = new if isinstance(new, bytes) else json.dumps(said).encode()
        count = len(text) if length is None else length
        (model / WEIGHTS).write_bytes(struct.pack("<Q", count) + text + content[8 + end :])

    return damage


def sharded(change: Callable[[dict[str, Any], Path], object]) -> Damage:
    """The weights in two files, with an index that is changed."""

    def damage(model: Path) -> None:
        held = load_file(model / WEIGHTS)
        (model / WEIGHTS).unlink()
        names = sorted(held)
        parts = {"a.safetensors": names[: len(names) // 2], "b.safetensors": names[len(names) // 2 :]}
        for file, its in parts.items():
            save_file({name: held[name] for name in its}, model / file, metadata={"format": "pt"})
        homes: dict[str, Any] = {name: file for file, its in parts.items() for name in its}
        document: dict[str, Any] = {"metadata": {}, "weight_map": homes}
        change(document, model)
        (model / INDEX).write_text(json.dumps(document))

    return damage


def home_of(value: Any) -> Damage:
    return sharded(lambda document, model: document["weight_map"].update({UP: value}))


def pipe(file: str) -> Damage:
    def damage(model: Path) -> None:
        (model / file).unlink(missing_ok=True)
        os.mkfifo(model / file)

    return damage


def linked(file: str, target: str) -> Damage:
    def damage(model: Path) -> None:
        (model / file).unlink(missing_ok=True)
        (model / file).symlink_to(target)

    return damage


def outside(value: str) -> Damage:
    """An index that names weights beside the directory of the model."""

    def change(document: dict[str, Any], model: Path) -> None:
        save_file({UP: torch.full((48, 32), 7.0)}, model.parent / "secret.safetensors", metadata={"format": "pt"})
        document["weight_map"][UP] = value.format(model.parent)

    return sharded(change)


def everything(value: str) -> Damage:
    return sharded(lambda document, model: document.update(weight_map=dict.fromkeys(document["weight_map"], value)))


class Harmful:
    def __reduce__(self):
        return os.system, ("touch $RAN",)


def pickled(file: str, keep: bool = False) -> Damage:
    def damage(model: Path) -> None:
        if not keep:
            (model / WEIGHTS).unlink()
        torch.save({"a": Harmful()}, model / file)

    return damage


def with_code(**changed: Any) -> Damage:
    def damage(model: Path) -> None:
        (model / "code.py").write_text(CODE)
        edited("config.json", auto_map={"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}, **changed)(model)

    return damage


def tokenizer(change: Callable[[dict[str, Any]], object]) -> Damage:
    def damage(model: Path) -> None:
        document = json.loads((model / "tokenizer.json").read_text())
        change(document)
        (model / "tokenizer.json").write_text(json.dumps(document))

    return damage


def replacing(text: str, content: str, times: int = 1) -> Damage:
    step = {"type": "Replace", "pattern": {"String": text}, "content": content}
    return tokenizer(lambda document: document.update(normalizer={"type": "Sequence", "normalizers": [step] * times}))


def splitting(expression: str) -> Damage:
    rule = {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False}
    return tokenizer(lambda document: document.update(pre_tokenizer=rule))


# -- weights -----------------------------------------------------------------------------------------------------------

for part in (0.0, 0.001, 0.01, 0.5, 0.9999):
    case(
        f"{part:%} of the weights",
        lambda model, part=part: (model / WEIGHTS).write_bytes(
            (whole := (model / WEIGHTS).read_bytes())[: int(len(whole) * part)]
        ),
        sample=part == 0.5,
    )
for number in (2**63, 2**62 - 1, 99_000_000):
    case(f"a header of {number} bytes", header(lambda said: None, number))
case("a header of 90 MB of spaces", header(lambda said: json.dumps(said).encode() + b" " * 90_000_000), EITHER)
case("a header of 200 thousand brackets", header(lambda said: b'{"a":' * 200_000), sample=True)
case("a shape below zero", header(lambda said: said[UP].update(shape=[-1, 32])))
case("a shape of 2^80 numbers", header(lambda said: said[UP].update(shape=[2**40, 2**40])), sample=True)
case(
    "two tensors in one place",
    header(lambda said: said[UP].update(data_offsets=said["model.layers.0.mlp.up_proj.weight"]["data_offsets"])),
)
case("bytes after the weights", lambda model: (model / WEIGHTS).write_bytes((model / WEIGHTS).read_bytes() + b"\0" * 999))
case("a weight of whole numbers", weights(lambda held: held.update({UP: held[UP].long()})))
case("a complex weight", weights(lambda held: held.update({UP: held[UP].to(torch.complex64)})))
case("a weight of truth values", weights(lambda held: held.update({UP: held[UP] > 0})))
case("a transposed weight", weights(lambda held: held.update({UP: held[UP].T.contiguous()})))
case("a missing weight", weights(lambda held: held.pop(UP)), sample=True)
case("NaN in a weight", weights(lambda held: held[UP].view(-1)[5].fill_(float("nan"))))
case("infinity in a norm", weights(lambda held: held["model.norm.weight"][0].fill_(float("inf"))))
case("NaN in the head", weights(lambda held: held["lm_head.weight"].view(-1)[0].fill_(float("nan"))))
case("a block beyond the last", weights(lambda held: held.update({UP.replace("1", "2"): held[UP].clone()})), sample=True)
case("weights that are a directory", lambda model: ((model / WEIGHTS).unlink(), (model / WEIGHTS).mkdir()))
case(
    "weights that are a link to another file",
    lambda model: ((model / WEIGHTS).rename(model.parent / "there"), (model / WEIGHTS).symlink_to(model.parent / "there")),
    TAKEN,
)

# -- indices -----------------------------------------------------------------------------------------------------------

case("two files", sharded(lambda document, model: None), TAKEN, sample=True)
case("a file that is missing", sharded(lambda document, model: (model / "b.safetensors").unlink()))
case("an index of a file that is missing", home_of("nope.safetensors"))
case("an index of a file beside the directory", outside("../secret.safetensors"), sample=True)
case("an index of a file by its whole path", outside("{}/secret.safetensors"))
for value in (5, None, [], "", ".", "..", "/dev/zero", "/dev/stdin"):
    case(f"an index of {value!r}", home_of(value), sample=value == "/dev/zero")
case("an index of nothing but /dev/zero", everything("/dev/zero"))
case("an index that is a list", sharded(lambda document, model: document.update(weight_map=["a"])))
case("an index of text", sharded(lambda document, model: document.update(weight_map="a")))
case("an index of nothing", sharded(lambda document, model: document.update(weight_map={})))
case("an index without a weight", sharded(lambda document, model: document["weight_map"].pop(UP)), EITHER)
case("an index of the wrong file", home_of("a.safetensors" if UP > "model.layers.1.m" else "b.safetensors"), EITHER)
case("an index that is no JSON", lambda model: (sharded(lambda document, model: None)(model), (model / INDEX).write_text("{")))
case(
    "an index of brackets",
    lambda model: (sharded(lambda document, model: None)(model), (model / INDEX).write_text("[" * 100_000)),
)

# -- pipes and devices -------------------------------------------------------------------------------------------------

for file in ("config.json", WEIGHTS, "tokenizer.json", "tokenizer_config.json", "generation_config.json", "gramian.json",
             "modeling_gramian.py", "chat_template.jinja", "adapter_config.json"):  # fmt: skip
    case(f"{file} is a pipe", pipe(file), sample=file in ("config.json", "tokenizer.json"))
    case(f"{file} is /dev/zero", linked(file, "/dev/zero"), sample=file == WEIGHTS)
case("a file of an index is a pipe", sharded(lambda document, model: pipe("b.safetensors")(model)))

# -- configurations ----------------------------------------------------------------------------------------------------

for what, content in {
    "nothing": "",
    "a list": "[1, 2]",
    "null": "null",
    "brackets": "[" * 200_000,
    "noise": random.Random(0).randbytes(500),
}.items():
    case(f"a configuration of {what}", written("config.json", content))
for key, value, outcome in [
    ("hidden_size", "32", EITHER), ("hidden_size", -32, REFUSED), ("hidden_size", 0, REFUSED), ("hidden_size", 10**12, REFUSED),
    ("hidden_size", 10**6, REFUSED), ("intermediate_size", 10**9, REFUSED), ("num_hidden_layers", -1, REFUSED),
    ("num_hidden_layers", 0, REFUSED), ("num_hidden_layers", 10**7, REFUSED), ("num_hidden_layers", 10**18, REFUSED),
    ("num_hidden_layers", 1, REFUSED), ("num_hidden_layers", 3, REFUSED), ("num_attention_heads", 0, REFUSED),
    ("num_attention_heads", 3, REFUSED), ("num_key_value_heads", 3, REFUSED), ("vocab_size", 10**11, REFUSED),
    ("vocab_size", 10, REFUSED), ("vocab_size", "x", REFUSED), ("num_labels", 10**9, REFUSED), ("hidden_act", "evil", REFUSED),
    ("hidden_act", "null", REFUSED), ("model_type", 5, REFUSED), ("model_type", "null", REFUSED),
    ("model_type", "LLAMA", REFUSED),
    ("architectures", 5, EITHER), ("architectures", ["os.system"], EITHER), ("dtype", "float99", REFUSED),
    ("dtype", "system", REFUSED), ("dtype", "load", REFUSED), ("dtype", "complex64", REFUSED), ("dtype", "int8", REFUSED),
    ("dtype", 5, REFUSED), ("rope_parameters", {"rope_type": "evil"}, REFUSED), ("max_position_embeddings", 0, EITHER),
    ("max_position_embeddings", -5, EITHER), ("max_position_embeddings", 10**12, EITHER), ("bos_token_id", "x", EITHER),
    ("tie_word_embeddings", True, EITHER), ("attn_implementation", "evil", EITHER),
    ("_attn_implementation", "flash_attention_2", EITHER), ("quantization_config", {"quant_method": "gptq"}, REFUSED),
    ("head_dim", 7, REFUSED), ("rms_norm_eps", "x", REFUSED), ("initializer_range", "q", EITHER), ("use_cache", "no", EITHER),
]:  # fmt: skip
    sample = (key, value) in [("num_hidden_layers", 10**7), ("hidden_size", 10**12), ("num_hidden_layers", 1)]
    case(f"a configuration with {key} {value!r}", edited("config.json", **{key: value}), outcome, sample)
for key in ("hidden_size", "vocab_size", "model_type", "intermediate_size"):
    case(f"a configuration without {key}", edited("config.json", **{key: None}))

# -- code --------------------------------------------------------------------------------------------------------------

case("code of its own beside a known type", with_code(), EITHER, sample=True)
case("code of its own", with_code(model_type="own"), sample=True)
case("pickled weights", pickled("pytorch_model.bin"), sample=True)
case("pickled weights beside others", pickled("pytorch_model.bin", keep=True), TAKEN)
case("pickled weights under another name", pickled(WEIGHTS))
case(
    "an index of pickled weights",
    lambda model: (pickled("p.bin")(model), (model / INDEX).write_text(json.dumps({"weight_map": {UP: "p.bin"}}))),
    sample=True,
)
case(
    "a tokenizer with code",
    lambda model: (
        (model / "code.py").write_text(CODE),
        edited(
            "tokenizer_config.json", auto_map={"AutoTokenizer": ["code.Tokenizer", "code.Tokenizer"]}, tokenizer_class="Own"
        )(model),
    ),
    EITHER,
)
case("a tokenizer of a class of the system", edited("tokenizer_config.json", tokenizer_class="os.system"), EITHER)
case(
    "a chat template with code",
    written("chat_template.jinja", "{{ cycler.__init__.__globals__.os.popen('touch $RAN').read() }}"),
    TAKEN,
)
case(
    "generation with code",
    lambda model: (
        (model / "custom_generate").mkdir(),
        (model / "custom_generate" / "generate.py").write_text(CODE),
        edited("generation_config.json", custom_generate=".")(model),
    ),
    EITHER,
)

# -- tokenisers and other files ----------------------------------------------------------------------------------------

case("a tokenizer that backtracks", splitting("([0-9 ]+)+x"), sample=True)
case("a tokenizer that backtracks on letters", splitting("([a-z ]+)+!"), REFUSED)
case("a tokenizer that makes texts 3000 times as long", replacing(" ", "1" * 3000), EITHER)
case("a tokenizer that makes texts 60^5 times as long", replacing("1", "1" * 60, 5), sample=True)
case("a tokenizer of an unknown kind", tokenizer(lambda document: document["model"].update(type="Own")))
case("a tokenizer whose vocabulary is a list", tokenizer(lambda document: document["model"].update(vocab=[1])))
case(
    "a tokenizer of tokens beyond the model",
    tokenizer(lambda document: document["model"]["vocab"].update({"1": 100_000})),
    EITHER,
)
FAR = {
    "id": 10**9,
    "content": "12",
    "single_word": False,
    "lstrip": False,
    "rstrip": False,
    "normalized": False,
    "special": True,
}
case("a tokenizer with token 10^9", tokenizer(lambda document: document.setdefault("added_tokens", []).append(FAR)), EITHER)
case("a tokenizer of brackets", written("tokenizer.json", "[" * 200_000))
case("a tokenizer configuration of nothing", written("tokenizer_config.json", ""), EITHER)
case("generation settings that are no JSON", written("generation_config.json", "{"), EITHER)
case(
    "generation settings of the wrong types",
    written("generation_config.json", '{"temperature": "hot", "num_beams": "x"}'),
    EITHER,
)
case("generation settings that are a list", written("generation_config.json", "[1]"), EITHER)
ATTENTION = {
    "blocks": "layers", "owner": "self_attn", "producers": {"self_attn.q_proj": "unit"}, "consumer": "self_attn.o_proj",
    "counts": {}, "size": 8, "units": [-5, -5], "groups": [-5, -5],
}  # fmt: skip
UNEVEN = {"model_type": "gramian_llama", "uneven_units": [ATTENTION]}
case("widths below zero", edited("config.json", **UNEVEN))
case("widths that are a number", edited("config.json", **UNEVEN | {"uneven_units": 3}))
case("widths of nothing", edited("config.json", **UNEVEN | {"uneven_units": [{}]}))
case("widths of 10^12", edited("config.json", **UNEVEN | {"uneven_units": [ATTENTION | {"size": 10**12}]}))
case("widths of another kind", edited("config.json", model_type="gramian_nothing"))
case("a report that lists a file outside", written("gramian.json", '{"files": {"../text.txt": "0"}}'), sample=True)


# -- what happens ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    return save(tiny_model("llama"), tiny_tokenizer(), tmp_path_factory.mktemp("sound") / "model")


@pytest.fixture
def work(sound, tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAN", str(tmp_path / "ran"))
    monkeypatch.setattr(tokenizer_trials, "SECONDS", 5.0)
    monkeypatch.setattr(tokenizer_trials, "MEMORY", 2 * GIB)
    shutil.copytree(sound, "model")
    (tmp_path / "text.txt").write_text("a line of letters " + " ".join(map(str, range(500))))
    return tmp_path


def outcome_of(memory: str, before: set[str]) -> str:
    """Run a model, and check whatever holds of every one."""
    code = ended(forked(["prune", "model", "--out", "out", *TEXTS, "--memory", memory], memory=4 * GIB), SECONDS)
    said = Path("log").read_text(errors="replace")
    assert code in (0, 1), (code, said)
    assert not Path("ran").exists(), "code of the model was run"
    assert "Traceback" not in said and "--debug shows" not in said, said
    if code == 0:
        assert Path("out").is_dir()
        shutil.rmtree("out")
        return TAKEN
    (line,) = [line for line in said.splitlines() if line.startswith("gramian: error: ")]
    assert "model" in line, line
    shutil.rmtree("out.journal", ignore_errors=True)  # of blocks before the one that fails
    assert {path.name for path in Path().iterdir()} - {"log"} == before, "something is left"
    return REFUSED


@pytest.mark.parametrize("memory", ["host", "stream"])
@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in SAMPLE else pytest.mark.slow) for name in CASES])
def test_a_hostile_model(name, memory, work):
    damage, expected = CASES[name]
    damage(work / "model")
    before = {path.name for path in work.iterdir()}
    found = outcome_of(memory, before)
    assert expected in (found, EITHER)


def described(content: bytes) -> dict[str, Any]:
    """What the header of a file says of its tensors."""
    (end,) = struct.unpack("<Q", content[:8])
    return {name: entry for name, entry in json.loads(content[8 : 8 + end]).items() if name != "__metadata__"}


@pytest.mark.parametrize("flips", [4, pytest.param(60, marks=pytest.mark.slow)])
def test_a_flipped_bit_of_the_header_is_seen(flips, work):
    """Unless it says the same of every tensor. A flipped bit of the numbers gives other numbers."""
    whole = (work / "model" / WEIGHTS).read_bytes()
    (end,) = struct.unpack("<Q", whole[:8])
    generator = random.Random(1)
    for number in range(flips):
        content = bytearray(whole)
        place = generator.randrange(8 + end) if number % 2 else generator.randrange(8 + end, len(whole))
        content[place] ^= 1 << generator.randrange(8)
        (work / "model" / WEIGHTS).write_bytes(content)
        for memory in ("host", "stream"):
            if outcome_of(memory, {"model", "text.txt"}) == TAKEN:
                assert described(bytes(content)) == described(whole)


@pytest.mark.parametrize("option", ["--include", "--exclude", "--sparsity-of"])
def test_an_expression_that_tries_every_way_ends(option, work):
    expression = r"^(a?.?){40}\1[A-Z]"
    value = f"{expression}=0.5" if option == "--sparsity-of" else expression
    code = ended(forked(["prune", "model", "--out", "out", *TEXTS, option, value]), 30)
    said = Path("log").read_text()
    assert code == 1 and "takes more than 1 s for the name 'model.layers.0" in said and repr(expression) in said
