"""What is run on both versions, in the words of the baseline.

Not the full product of methods, patterns, families and forms of saving: every value of every setting occurs, and settings
that meet in the code occur together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["CASES", "Case"]


@dataclass(frozen=True)
class Case:
    """verb: the function of `baseline` that runs it. model: see `side.made`. tokens: `few` windows, one batch, or `many`.
    heldout: whether others judge. forms: in which the pruned model is saved, and loaded again."""

    name: str
    verb: str
    model: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    tokens: str = "few"
    heldout: bool = True
    forms: tuple[str, ...] = ()


def prune(
    model: str, method: str, said: str, forms: Sequence[str] = (), *, tokens: str = "few", heldout: bool = True, **settings: Any
) -> Case:
    given = {"method": method, **settings}
    return Case(f"prune {method} {model}: {said}", "prune", model, given, tokens, heldout, tuple(forms))


def fista(
    model: str, said: str, forms: Sequence[str] = (), *, heldout: bool = True, options: Mapping[str, Any] = {}, **settings: Any
) -> Case:
    """With fewer and shorter inner runs than the method does by itself."""
    quick = {"visits": 3, "inner_steps": 8} | options
    return prune(model, "fistapruner", said, forms, heldout=heldout, options=quick, **settings)


def remove(
    model: str,
    method: str,
    said: str,
    forms: Sequence[str] = (),
    *,
    tokens: str = "few",
    heldout: bool = True,
    ratio: float = 0.3,
    **settings: Any,
) -> Case:
    given = {"method": method, "ratio": ratio, **settings}
    return Case(f"remove {method} {model}: {said}", "remove", model, given, tokens, heldout, tuple(forms))


def stream(model: str, method: str, said: str, **settings: Any) -> Case:
    return Case(f"stream {method} {model}: {said}", "stream", model, {"method": method, **settings})


def command(said: str, *lines: str, model: str = "llama") -> Case:
    """lines: command lines; where they run are a checkpoint `source`, a `text.txt` and a `tokens.safetensors`."""
    return Case(f"command {model}: {said}", "command", model, {"commands": [line.split() for line in lines]})


def measure(model: str, verb: str, said: str = "", **settings: Any) -> Case:
    return Case(f"measure {verb} {model}{said and ': '}{said}", verb, model, settings)


FEW = "--calibration text.txt --samples 4 --length 32 --heldout 2"
FISTA = f"{FEW} --visits 3 --inner-steps 8"
JUDGED = "--text text.txt --length 32 --windows 3 --json perplexity.json"
TWO = "layers.0.*(q|down)_proj"
CAPTURED = "problems/model.layers.0.self_attn.q_proj.safetensors problems/model.layers.0.mlp.down_proj.safetensors"
SOLVED = {
    "fistapruner": "fistapruner --visits 3 --pattern 2:4",
    "l0": "l0 --damping auto",
    "sparsegpt": "sparsegpt --sparsity 0.6 --refit",
    "wanda": "wanda --damping 0.1 --refit",
    "magnitude": "magnitude --per-row",
    "own": "own_method:curvature",
}

ZEROS = (
    fista("llama", "as it comes", ("model", "structured", "padded")),
    fista("mistral", "2:4 from wanda", pattern="2:4", options={"warm_start": "wanda"}),
    fista("qwen2", "4:8 from dense, raw coordinates", pattern="4:8", options={"warm_start": "dense", "coordinates": "raw"}),
    fista("qwen3", "scaled penalty from magnitude", sparsity=0.7, options={"warm_start": "magnitude", "l1": "scaled"}),
    fista(
        "gemma3_text",
        "every figure of the search",
        options={"patience": 1, "threshold": 0.2, "tolerance": 1e-2, "first_lambda": 1e-3},
    ),
    fista("opt", "pruned inputs, model correction", inputs="pruned", correction="model"),
    fista("gpt2", "half of the layer correction, two jobs", share=0.5, jobs=2),
    fista("exact llama", "float64, no held-out text", heldout=False),
    fista("llama", "no correction, refit, damped", correction="none", refit=True, damping=0.03),
    fista("bfloat16 qwen2", "bfloat16, offloaded", ("model",), device="cpu"),
    prune("llama", "l0", "damping chosen by text set aside", ("model",), tokens="many"),
    prune("gemma3_text", "l0", "one batch, damping in closed form"),
    prune("mistral", "l0", "2:4, undamped", pattern="2:4", damping=0),
    prune("qwen2", "l0", "4:8, damping a number", pattern="4:8", damping=0.1),
    prune(
        "qwen3", "l0", "dense inputs, whole layer correction, two jobs", inputs="dense", correction="layer", share=1.0, jobs=2
    ),
    prune("opt", "l0", "pruned inputs, layer correction, a quarter", inputs="pruned", correction="layer", share=0.25),
    prune("gpt2", "l0", "no correction, refit, chosen damping", correction="none", share=1.0, refit=True, tokens="many"),
    prune("llama", "l0", "dense inputs, model correction", inputs="dense", correction="model", sparsity=0.8),
    prune("llama", "l0", "every option", options={"steps": 40, "first": 0.1, "last": 0.5, "stage": 2}),
    prune("float16 mistral", "l0", "float16, a few operators", ("model",), include="down_proj|q_proj", exclude="0.*q_"),
    prune("llama", "sparsegpt", "as it comes", ("model",)),
    prune("mistral", "sparsegpt", "2:4, short blocks", pattern="2:4", options={"block": 16}),
    prune("qwen2", "sparsegpt", "4:8, layer correction", pattern="4:8", correction="layer"),
    prune("qwen3", "sparsegpt", "more damping, refit with a ridge", options={"damping": 0.1}, refit=True, damping=0.03),
    prune("gemma3_text", "sparsegpt", "dense inputs, three jobs, many batches", inputs="dense", jobs=3, tokens="many"),
    prune(
        "opt",
        "sparsegpt",
        "offloaded, model correction, problems written",
        correction="model",
        device="cpu",
        problems="problems",
    ),
    prune("gpt2", "sparsegpt", "model correction, two fifths", correction="model", share=0.4, sparsity=0.25),
    prune("gemma3_text", "sparsegpt", "refit with chosen damping", refit=True, damping="auto", tokens="many"),
    prune("llama", "wanda", "as it comes", ("model", "structured")),
    prune("mistral", "wanda", "2:4, refit", pattern="2:4", refit=True),
    prune("qwen2", "wanda", "1:4, dense inputs", pattern="1:4", inputs="dense"),
    prune(
        "gpt2",
        "wanda",
        "layer correction, refit, problems written",
        correction="layer",
        inputs="dense",
        refit=True,
        problems="problems",
    ),
    prune("opt", "wanda", "refit in closed form", refit=True, damping="auto", sparsity=0.9),
    prune("qwen3", "magnitude", "as it comes", ("model",)),
    prune("gemma3_text", "magnitude", "2:4, refit to the model", pattern="2:4", refit=True, correction="model", share=0.5),
    prune("bfloat16 gpt2", "magnitude", "bfloat16, nothing removed", ("model",), sparsity=0.0),
    prune("llama", "own_method:curvature", "with an option", options={"power": 0.5}),
    prune("opt", "own_method:curvature", "2:4", pattern="2:4", correction="layer"),
)

STREAMED = (
    stream("llama", "sparsegpt", "bfloat16", dtype="bfloat16", correction="layer"),
    stream("gpt2", "l0", "tied head, 2:4", pattern="2:4"),
    stream("gemma3_text", "wanda", "a few operators", include="layers\\.1\\."),
    stream("bfloat16 qwen2", "magnitude", "refit to the model", refit=True, correction="model"),
)

UNITS = (
    remove("llama", "numerical", "as it comes", ("structured", "padded")),
    remove("mistral", "numerical", "by kind", ("model", "structured"), allocation="kinds"),
    remove("qwen2", "numerical", "by kind, box", ("structured", "padded"), allocation="kinds", options={"score": "box"}),
    remove("qwen3", "numerical", "one ranking, newton", allocation="numerical", options={"score": "newton"}),
    remove("gemma3_text", "numerical", "global, box", options={"score": "box"}),
    remove("opt", "numerical", "global, newton, a penalty", options={"score": "newton", "penalty": 0.5}),
    remove("gpt2", "numerical", "recovered", ("structured", "padded"), recover=True),
    remove("llama", "numerical", "recovered and exchanged", recover=True, exchange=True, ratio=0.5),
    remove("qwen3", "numerical", "exchanged, half of the target", exchange=True, share=0.5),
    remove("mistral", "numerical", "heads evenly", ("structured", "padded"), heads="even"),
    remove("gemma3_text", "numerical", "heads evenly, recovered, by kind", heads="even", recover=True, allocation="kinds"),
    remove("opt", "numerical", "dense inputs, damped", inputs="dense", damping=0.3),
    remove("gpt2", "numerical", "box, exchanged, by kind", allocation="kinds", options={"score": "box"}, exchange=True),
    remove("llama", "numerical", "not compensated, no held-out text", compensate=False, heldout=False),
    remove("bfloat16 llama", "numerical", "bfloat16, offloaded", ("structured", "padded"), device="cpu"),
    remove("exact qwen2", "numerical", "float64, many batches, undamped", tokens="many", damping=0.0),
    remove("llama", "numerical", "feed-forward modules of one block", include="down_proj", blocks=(1, None), ratio=0.1),
    remove("llama", "flap", "as it comes", ("structured",)),
    remove("opt", "flap", "biases that are there", ("structured", "padded"), allocation="kinds"),
    remove("gpt2", "flap", "by kind, pruned inputs", allocation="kinds", inputs="pruned"),
    remove("qwen3", "flap", "global, not compensated", ("padded",), allocation="global", compensate=False),
    remove("llama", "greedy-output", "one ranking", ("structured",), allocation="numerical"),
    remove(
        "mistral",
        "greedy-output",
        "the paper's scan, gaussian moments",
        allocation="numerical",
        options={"similar": "scan", "moment": "gaussian"},
    ),
    remove(
        "qwen2", "greedy-output", "threshold chosen, products", allocation="kinds", options={"tau": None, "moment": "product"}
    ),
    remove("opt", "greedy-output", "no distances, identity", allocation="numerical", options={"tau": 0, "moment": "identity"}),
    remove("gpt2", "greedy-output", "gaussian moments, by kind", allocation="kinds", options={"moment": "gaussian"}),
    remove("qwen3", "greedy-output", "heads evenly, global, recovered", heads="even", allocation="global", recover=True),
    remove(
        "gemma3_text", "greedy-output", "a wide threshold, exchanged", allocation="kinds", options={"tau": 0.5}, exchange=True
    ),
    remove("llama", "wanda-sp", "one ranking", ("padded",), allocation="numerical"),
    remove("gemma3_text", "wanda-sp", "compensated, global", compensate=True, allocation="global"),
    remove("qwen2", "magnitude-l1", "one ranking", allocation="numerical"),
    remove("gpt2", "magnitude-l1", "compensated, one ranking", compensate=True, allocation="numerical"),
    remove("mistral", "magnitude-l2", "one ranking, few blocks", allocation="numerical", blocks=(0, 1), ratio=0.2),
    remove("gemma3_text", "magnitude-l2", "heads evenly, compensated", heads="even", allocation="kinds", compensate=True),
    remove("llama", "random", "one ranking", allocation="numerical", options={"seed": 3}),
    remove("llama", "tasp", "as it comes", ("structured", "padded")),
    remove("opt", "tasp", "loss of the batch, attention too", options={"output": "loss", "samples": "batch"}, include="."),
    remove("gpt2", "tasp", "log-probabilities, compensated", options={"output": "logprob"}, compensate=True),
    remove("qwen2", "snip", "as it comes"),
    remove("mistral", "snip", "each window", options={"samples": "each"}, allocation="kinds"),
    remove("qwen3", "grasp", "as it comes"),
    remove("llama", "llm-pruner", "as it comes"),
    remove("gemma3_text", "llm-pruner", "first order", options={"order": 1}, include=".", heads="even"),
    remove("opt", "synflow", "as it comes"),
    remove("llama", "ntk-sap", "two draws", options={"draws": 2, "epsilon": 1e-3, "seed": 1}),
    remove("llama", "px", "as it comes"),
    remove("gpt2", "px", "attention too, global", include=".", allocation="global"),
    remove("t5", "numerical", "as it comes", ("structured", "padded"), ratio=0.1),
    remove("gated t5", "numerical", "box, exchanged", options={"score": "box"}, exchange=True, ratio=0.1),
    remove("bert", "numerical", "as it comes", ("structured", "padded")),
    remove("t5", "tasp", "as it comes", ratio=0.1),
    remove("gated t5", "flap", "as it comes", ("structured",), ratio=0.1),
    remove("bert", "flap", "by kind", allocation="kinds"),
    remove("bert", "greedy-output", "identity", allocation="kinds", options={"moment": "identity"}),
    remove("t5", "wanda-sp", "no held-out text", allocation="kinds", heldout=False, ratio=0.1),
    remove("bert", "synflow", "as it comes", ratio=0.2),
    remove("gated t5", "ntk-sap", "two draws", options={"draws": 2}, ratio=0.1),
    remove("bert", "px", "as it comes", ratio=0.2),
)

COMMANDS = (
    command("prune and measure", f"prune source --out out {FISTA} --json report.json", f"perplexity out {JUDGED}"),
    command("prune in bfloat16, by rows", f"prune source --out out {FEW} --method magnitude --per-row --dtype bfloat16"),
    command(
        "prune on tokens, judged elsewhere",
        "prune source --out out --calibration tokens.safetensors --samples 5 --heldout 2 --length 32 --seed 4 --method wanda "
        "--whole-matrix --evaluate text.txt",
    ),
    command(
        "prune on text of its own",
        "prune source --out out --calibration self --samples 3 --length 16 --heldout 2 --seed 3 --method sparsegpt "
        "--pattern 2:4 --refit --damping 0.03",
        model="gpt2",
    ),
    command(
        "prune every way",
        f"prune source --out out {FEW} --method l0 --inputs pruned --correction layer --share 0.5 --damping auto --include mlp "
        "--exclude gate --no-perplexity --offload --problems problems",
    ),
    command("prune by two jobs", f"prune source --out out {FISTA} --jobs 2 --sparsity 0.6 --no-perplexity", model="opt"),
    command("prune by a method of one's own", f"prune source --out out {FEW} --method own_method:curvature --no-perplexity"),
    command(
        "prune, streamed",
        f"prune source --out out {FEW} --method sparsegpt --stream --pattern 2:4 --json report.json",
        model="bfloat16 qwen2",
    ),
    command(
        "remove and remove again",
        f"prune source --out out {FEW} --method numerical --ratio 0.3 --json report.json",
        f"prune out --out smaller {FEW} --method magnitude-l1 --allocation numerical --ratio 0.1",
        f"perplexity smaller {JUDGED}",
    ),
    command("remove, padded", f"prune source --out out {FEW} --method wanda-sp --pad --allocation kinds --heads even"),
    command(
        "remove every way",
        f"prune source --out out {FEW} --method greedy-output --allocation kinds --recover --exchange --share 1 --damping 0.1 "
        "--blocks 1: --option tau=null --option moment=product --no-perplexity",
        model="qwen3",
    ),
    command(
        "remove from an encoder", f"prune source --out out {FEW} --method flap --ratio 0.2 --json report.json", model="bert"
    ),
    command("remove from T5", f"prune source --out out {FEW} --method tasp --ratio 0.1 --pad", model="t5"),
    command(
        "capture and solve",
        f"capture source --include {TWO} --out problems --calibration text.txt --samples 4 --length 32",
        f"capture source --include {TWO} --out heldout --calibration tokens.safetensors --samples 4",
        *(
            f"solve {CAPTURED} --method {method} --heldout heldout --json {place}.json --out {place}"
            for place, method in SOLVED.items()
        ),
    ),
    command(
        "solve what a run wrote",
        f"prune source --out out {FEW} --method wanda --inputs dense --correction layer --problems problems --include c_proj "
        "--no-perplexity",
        "solve problems/transformer.h.1.attn.c_proj.safetensors --method l0 --json rows.json --out answers",
        model="gpt2",
    ),
)

MEASURES = (
    *(measure(family, "perplexity") for family in ("llama", "gemma3_text", "gpt2", "opt")),
    *(measure(model, "embeddings") for model in ("bert", "t5", "llama")),
    *(measure(family, "head_distances") for family in ("llama", "gemma3_text", "gpt2", "bert")),
    *(measure(family, "shrunk") for family in ("llama", "gemma3_text", "gpt2", "opt", "gated t5", "bert")),
    measure("llama", "kernel_change", keep=20, output="logit"),
    measure("gpt2", "kernel_change", keep=40, output="loss"),
    measure("llama", "sampled", "from the model", source="self", samples=5, length=12, seed=7),
    measure("llama", "sampled", "the text that ships with Python", source="builtin", samples=6, length=64, seed=2),
    measure("llama", "captured", names=("model.layers.0.self_attn.o_proj", "model.layers.1.mlp.down_proj")),
    measure("gpt2", "captured", names=("transformer.h.0.attn.c_attn", "lm_head")),
    measure("gemma2", "captured", names=("model.layers.0.self_attn.q_proj",)),
    measure("llama", "written"),
)

CASES = (*ZEROS, *STREAMED, *UNITS, *COMMANDS, *MEASURES)
