"""`gramian perplexity`: how well a model predicts a text."""

from __future__ import annotations

import argparse

from gramian.adapters.cli.arguments import MakeCommand, add_json, add_model
from gramian.adapters.cli.output import emit
from gramian.adapters.cli.types import path, positive
from gramian.progress import say

__all__ = ["add_perplexity"]

MOST = 1024  # tokens in a window, where nothing else is said


def add_perplexity(command: MakeCommand) -> None:
    """Add the command."""
    parser = command(
        "perplexity",
        "measure how well a language model predicts a text",
        "Perplexity of a model on a text: exp of the mean negative log-likelihood per token, over consecutive windows,\n"
        "each after the begin token if the tokeniser has one. Lower is better; compare equal lengths only.",
        "  gramian perplexity org/model --text book.txt\n"
        "  gramian perplexity ./sparse --text book.txt --length 512 --windows 8",
    )
    add_model(parser)
    parser.add_argument("--text", type=path, required=True, metavar="FILE", help="UTF-8 text")
    parser.add_argument(
        "--length", type=positive, help="tokens in a window (default 1024, or the model's context if that is less)"
    )
    parser.add_argument("--windows", type=positive, metavar="N", help="only the first N windows (default: all)")
    add_json(parser)
    parser.set_defaults(run=measure_perplexity)


def measure_perplexity(args: argparse.Namespace) -> None:
    """Measure the perplexity of a model on a text, and print it."""
    from gramian.adapters.data.context import usual_length
    from gramian.adapters.data.tokens import Tokens
    from gramian.adapters.data.windows import file_windows
    from gramian.adapters.measure.likelihood import perplexity
    from gramian.adapters.models.loading import load
    from gramian.versions import versions

    say(f"loading {args.model}")
    model, tokenizer = load(args.model, dtype=args.dtype, device=args.device)
    length = args.length or usual_length(model, tokenizer, MOST)
    windows = file_windows(args.text, tokenizer, length, args.windows and args.windows * length)[: args.windows]
    result = perplexity(model, windows)
    figures = {
        "model": args.model,
        "text": str(args.text),
        "sha256": Tokens(windows, str(args.text)).digest,
        "perplexity": result.value,
        "windows": len(windows),
        "context": windows.shape[1],
        "versions": dict(versions()),
    }
    emit(
        figures, f"perplexity {result.value:.4f} on {len(windows)} windows of {windows.shape[1]} tokens, {args.text}", args.json
    )
