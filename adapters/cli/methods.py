"""`gramian methods` lists the methods, or explains one. Neither torch nor transformers is imported."""

from __future__ import annotations

import argparse
import json
from typing import Any

from gramian.adapters.cli.arguments import MakeCommand, add_json
from gramian.adapters.cli.output import emit
from gramian.adapters.methods.method import Method
from gramian.adapters.methods.registry import METHODS, file_of, resolve
from gramian.spelling import meant
from gramian.tables import table

__all__ = ["add_methods"]

KINDS = {"weights": "zeroes single weights: --sparsity", "units": "removes heads and channels: --ratio"}
WHOLE = {
    "experts": "removes whole experts: --ratio",
    "blocks": "removes whole blocks: --ratio",
    "stream": "narrows the stream: --ratio",
}


def add_methods(command: MakeCommand) -> None:
    """Add the command."""
    parser = command(
        "methods",
        "list the methods, or explain one",
        "List the methods, or say of one what it is for, its options and their defaults, and what it gathers.",
        "  gramian methods\n  gramian methods l0",
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="a name, or MODULE:NAME")
    add_json(parser)
    parser.set_defaults(run=list_methods, needs_models=False)


def list_methods(args: argparse.Namespace) -> None:
    """Print what every method is for, or all about the one that is named. An unknown name is bad usage, exit code 2."""
    if args.name is None:
        rows = [[name, method.granularity, method.described.partition("\n")[0]] for name, method in METHODS.items()]
        text = table(["method", "decides on", "what it is"], rows, words=3)
        emit({name: document_of(method) for name, method in METHODS.items()}, text, args.json)
    else:
        if ":" not in args.name and args.name not in METHODS:
            near = meant(args.name, METHODS)
            args.usage_error(
                f"no method {args.name!r}{near}; there are {', '.join(METHODS)}, and MODULE:NAME for one of your own"
            )
        method = resolve(args.name)
        emit({args.name: document_of(method)}, explained(args.name, method), args.json)


def document_of(method: Method) -> dict[str, Any]:
    """A method in JSON's terms."""
    return {
        "granularity": method.granularity,
        "described": method.described,
        "options": method.defaults,
        "settings": dict(method.settings),
        "gathers": gathered(method),
    }


def explained(name: str, method: Method) -> str:
    """All about a method, for a person."""
    options = [[f"--set {option}=", json.dumps(value)] for option, value in method.defaults.items()]
    settings = [[f"--{setting.replace('_', '-')}", json.dumps(value)] for setting, value in method.settings.items()]
    kind = WHOLE.get(method.modules, KINDS[method.granularity])
    parts = [f"{name} {kind}", method.described, f"It gathers {gathered(method)}."]
    if (file := file_of(name)) is not None:
        parts.append(f"It is what {file} says, which was run for this.")
    if options:
        parts.append(table(["option", "default"], options, words=2))
    if settings:
        parts.append(table(["setting", "its own default"], settings, words=2))
    return "\n\n".join(parts)


def gathered(method: Method) -> str:
    """What a method needs of the model, in words."""
    if method.modules == "blocks":
        return "outputs of the model without its blocks on some calibration windows, and second moments where it refits"
    if method.modules == "stream":
        return "second moments of what enters each norm of the stream"
    if method.gradients:
        return "gradients or outputs of the whole dense model on the calibration windows"
    what = "second moments of what enters each operator" if method.inputs else "nothing but the weights"
    return f"{what}, and more from the dense model beforehand" if method.prepare else what
