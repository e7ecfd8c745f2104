"""`gramian export`: a model in another format, checked with the runtime of that format."""

from __future__ import annotations

import argparse
from typing import Any

from gramian.adapters.cli.arguments import MakeCommand, add_json
from gramian.adapters.cli.output import emit
from gramian.adapters.cli.types import path, positive
from gramian.adapters.formats.carriers import need_format
from gramian.adapters.formats.placing import FORMATS, check_place
from gramian.progress import say

__all__ = ["add_export", "check_export"]


def add_export(command: MakeCommand) -> None:
    """Add the command."""
    parser = command(
        "export",
        "write a model in another format, checked with its runtime",
        "Write a model, pruned or not, as a GGUF file of llama.cpp or as an ONNX graph, or one with weights on a grid, as\n"
        "`sparsegpt-quantised` leaves them, as a checkpoint of compressed-tensors. Before anything appears at --out the\n"
        "result is run by llama.cpp, onnxruntime or transformers and compared with the model: GGUF by the text that it\n"
        "continues greedily, others by logits, or hidden states, on windows of several lengths. What a format cannot hold\n"
        "is refused by name. The extra `export` is needed, for compressed-tensors `quantised`.\n\n"
        "GGUF is one file, with the tokenizer, in the dtype of the weights. ONNX is a file, or where --out does not end with\n"
        ".onnx a directory with model.onnx, config.json and the tokenizer, always in float32; above 2 GB weights stand in\n"
        "model.onnx.data. Causal models take and return keys and values, by the names that optimum gives them.\n\n"
        "compressed-tensors is a directory that stock `from_pretrained` loads: codes of --bits, packed, and a scale for each\n"
        "--group of inputs, the weights to the bit; other operators remain dense.",
        "  gramian export ./sparse --format gguf --out sparse.gguf\n"
        "  gramian export ./uneven --format gguf --pad --out uneven.gguf   widths filled up with zeros\n"
        "  gramian export ./small --format onnx --out small-onnx\n"
        "  gramian export ./encoder --format onnx --out encoder.onnx\n"
        "  gramian export ./on-a-grid --format compressed-tensors --out packed",
    )
    parser.usage = "gramian export MODEL --format {gguf,onnx,compressed-tensors} --out FILE_OR_DIR [options]"
    parser.add_argument(
        "model", metavar="MODEL", help="local directory, hub id (org/name), .gguf file, or `demo` for gemma-3-270m"
    )
    parser.add_argument("--format", choices=FORMATS, required=True, help="gguf, for llama.cpp, onnx, or compressed-tensors")
    parser.add_argument(
        "--out",
        dest="place",
        type=path,
        required=True,
        metavar="FILE_OR_DIR",
        help="NAME.gguf, NAME.onnx, or a directory for ONNX and compressed-tensors",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the file, or everything in the directory")
    parser.add_argument(
        "--pad", action="store_true", help="gguf: fill up uneven widths with zeros, which computes the same (not by default)"
    )
    parser.add_argument(
        "--no-past", action="store_true", help="onnx: logits of whole sequences, without keys and values in and out"
    )
    parser.add_argument(
        "--dtype", choices=("auto", "float32", "bfloat16", "float16"), default="auto",
        help="gguf: dtype of the weights in the file (default: the checkpoint's)",
    )  # fmt: skip
    parser.add_argument("--bits", type=int, choices=(4, 8), help="compressed-tensors: of a code (4)")
    parser.add_argument("--group", type=positive, metavar="N", help="compressed-tensors: inputs that share a scale (64)")
    add_json(parser)
    parser.set_defaults(run=export_model, check=check_usage)


def check_usage(args: argparse.Namespace) -> None:
    """End with exit code 2 where options contradict each other."""
    if (wrong := export_usage(args)) is not None:
        args.usage_error(wrong)


def export_usage(args: argparse.Namespace) -> str | None:
    """What is wrong with options together, if anything."""
    if args.format == "onnx" and args.pad:
        return "--pad is for --format gguf: ONNX holds any widths"
    if args.format == "onnx" and args.dtype != "auto":
        return f"--dtype {args.dtype} is for --format gguf: ONNX is float32, as the model runs on a CPU"
    if args.format == "gguf" and args.no_past:
        return "--no-past is for --format onnx: llama.cpp always keeps keys and values"
    packed = args.format == "compressed-tensors"
    for flag, given in (("--pad", args.pad), ("--no-past", args.no_past), ("--dtype", args.dtype != "auto")):
        if packed and given:
            return f"{flag} does not go with --format compressed-tensors, which holds the weights as they are stored"
    for flag, given in (("--bits", args.bits), ("--group", args.group)):
        if not packed and given is not None:
            return f"{flag} is for --format compressed-tensors: {args.format} holds weights as numbers, not as codes"
    if args.json and args.json.absolute() == args.place.absolute():
        return "--json and --out name the same file"
    return None


def check_export(args: argparse.Namespace) -> None:
    """Raise for packages that are missing, and for a place that cannot be written."""
    need_format(args.format)
    check_place(args.place, args.format, args.overwrite)


def export_model(args: argparse.Namespace) -> None:
    """Export a model and print what was done, and how the result agrees."""
    from gramian.adapters.formats.exporting import export_gguf, export_onnx
    from gramian.adapters.formats.packed_checkpoint import export_packed
    from gramian.adapters.models.loading import load

    say(f"loading {args.model}")
    model, tokenizer = load(args.model, dtype=args.dtype)
    out = args.place.resolve()
    if args.format == "onnx":
        document = export_onnx(model, tokenizer, out, not args.no_past, args.overwrite)
    elif args.format == "compressed-tensors":
        document = export_packed(model, tokenizer, out, args.bits or 4, args.group or 64, args.overwrite)
    else:
        document = export_gguf(model, tokenizer, out, args.pad, args.overwrite)
    document = {"model": str(args.model), "out": str(out), **document}
    text = {"onnx": onnx_text, "gguf": gguf_text, "compressed-tensors": packed_text}[args.format]
    emit(document, text(document), args.json)


def onnx_text(document: dict[str, Any]) -> str:
    """What was done, for a person."""
    check = document["check"]
    past = sum(name.startswith("past_key_values.") for name in document["inputs"])
    shown = [name for name in document["inputs"] if not name.startswith("past_key_values.")]
    takes = f"{', '.join(shown)}{f' and past_key_values of {past // 2} layers' if past else ''}"
    return (
        f"onnxruntime differs from torch by {check['relative']:.1e} of the outputs' norm (at most {check['absolute']:.1e}) on "
        f"windows of {', '.join(map(str, check['lengths']))} tokens; {check['tolerance']:.0e} is allowed\n"
        f"it takes {takes}, and gives {document['outputs'][0]}\n"
        f"saved to {document['out']}: {document['bytes']} bytes, float32"
    )


def packed_text(document: dict[str, Any]) -> str:
    """What was done, for a person."""
    check, dense = document["check"], document["dense"]
    lines = [
        f"transformers loads it, and differs by {check['relative']:.1e} of the logits' norm on windows of "
        f"{', '.join(map(str, check['lengths']))} tokens; {check['tolerance']:.0e} is allowed",
        f"{document['packed']} operators are packed, in {document['bits']} bits and groups of {document['group']}",
    ]
    if dense:
        lines.append(f"{dense[0]}{f' and {len(dense) - 1} more' if len(dense) > 1 else ''} on no such grid: dense")
    if undivided := document["undivided"]:
        group = document["group"]
        lines.append(
            f"the inputs of {undivided[0]} are no multiple of {group}: prune with --round-to {group} to have them packed"
        )
    lines.append(f"saved to {document['out']}: {document['bytes']} bytes in place of {document['dense_bytes']}")
    return "\n".join(lines)


def gguf_text(document: dict[str, Any]) -> str:
    """What was done, for a person."""
    check = document["check"]
    theirs, own = check["text_tokens"]
    ties = check["compared"] - check["equal"]
    lines = [
        f"llama.cpp continues prompts of {', '.join(map(str, check['prompts']))} tokens as torch does: {check['equal']} of "
        f"{check['compared']} tokens are equal{f', {ties} are ties' if ties else ''}"
    ]
    if check["known"]:
        lines[0] += f"; log-probabilities differ by at most {check['difference']:.4f} nats, {check['tolerance']} is allowed"
    if theirs != own:
        lines.append(
            f"a text of {own} tokens for the model's tokenizer is {theirs} for llama.cpp: look at its begin token, and at how "
            "the tokenizer splits words"
        )
    lines.append(f"saved to {document['out']}: {document['bytes']} bytes, {document['dtype']}")
    return "\n".join(lines)
