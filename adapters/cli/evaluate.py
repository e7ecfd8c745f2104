"""`gramian evaluate`: a model is judged, alone or beside the dense one."""

from __future__ import annotations

import argparse

from gramian.adapters.cli.arguments import MakeCommand, add_html, add_json, add_model
from gramian.adapters.cli.output import emit
from gramian.adapters.cli.pages import write_page
from gramian.adapters.cli.types import path, positive
from gramian.progress import say

__all__ = ["add_evaluate"]


def add_evaluate(command: MakeCommand) -> None:
    """Add the command and its options."""
    parser = command(
        "evaluate",
        "judge a model, alone or beside the dense one",
        "Perplexity on held-out text, also by position; beside the dense model KL divergence, agreement of the likeliest\n"
        "token and of greedy continuations; copying of random tokens and facts found again in text of several lengths;\n"
        "tasks by name through lm-eval (extra `eval`), or questions from a file; of encoders, embeddings. Every figure\n"
        "has a 95 % interval, and with --dense a paired one of the change. The format of files of questions is described\n"
        "in gramian.adapters.data.question_files.",
        "  gramian evaluate ./sparse --dense org/model\n"
        "  gramian evaluate ./sparse --dense org/model --tasks arc_easy hellaswag --limit 200\n"
        "  gramian evaluate ./sparse --tasks questions.jsonl --text book.txt --json result.json",
    )
    add_model(parser)
    parser.add_argument("--dense", metavar="MODEL", help="the model to compare it with, given as MODEL is (none)")
    parser.add_argument(
        "--tasks",
        nargs="+",
        default=[],
        metavar="NAME",
        help="names of tasks of lm-eval, or one FILE.jsonl of questions (none)",
    )
    parser.add_argument(
        "--task-folder", type=path, metavar="DIR", help="task files of your own in lm-eval's format; these may run code"
    )
    parser.add_argument("--limit", type=positive, metavar="N", help="only the first N documents of every task by name (all)")
    parser.add_argument(
        "--text", type=path, metavar="FILE", help="UTF-8 text to judge on (English text that ships with Python)"
    )
    parser.add_argument("--length", type=positive, help="tokens in a window (256, or what fits)")
    parser.add_argument("--windows", type=positive, default=16, metavar="N", help="the first N windows (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of probes and intervals (%(default)s)")
    add_html(parser)
    add_json(parser)
    parser.set_defaults(run=evaluate_model)


def evaluate_model(args: argparse.Namespace) -> None:
    """Load the model, and the dense one, judge them and print what was found."""
    from gramian.adapters.data.context import usual_length
    from gramian.adapters.data.texts import heldout_windows
    from gramian.adapters.data.tokens import Tokens
    from gramian.adapters.data.windows import file_windows
    from gramian.adapters.evaluation.runs import LENGTH, evaluate
    from gramian.adapters.models.loading import load
    from gramian.adapters.pages.evaluated import page_of_evaluation

    say(f"loading {args.model}")
    model, tokenizer = load(args.model, dtype=args.dtype, device=args.device)
    dense = other = None
    if args.dense is not None:
        say(f"loading {args.dense}")
        dense, other = load(args.dense, dtype=args.dtype, device=args.device)
        tokenizer = tokenizer or other
    length = args.length or usual_length(model, tokenizer, LENGTH)
    if args.text is not None:
        rows = file_windows(args.text, tokenizer, length, args.windows * length)[: args.windows]
        text = Tokens(rows, str(args.text))
    elif tokenizer is None:
        raise ValueError(f"{args.model} has no tokenizer, so it cannot be judged on text: use gramian.evaluate with windows=")
    else:
        text = Tokens(heldout_windows(tokenizer, length, args.windows), "held out of builtin")
    if other is not None and tokenizer is not other and tokenizer is not None:
        words = tokenizer.decode(text.windows[0], skip_special_tokens=True)
        if tokenizer(words)["input_ids"] != other(words)["input_ids"]:
            raise ValueError(f"{args.model} and {args.dense} have tokenizers that differ, so they cannot be compared by token")
    found = evaluate(
        model, tokenizer, dense=dense, windows=text, tasks=args.tasks, task_folder=args.task_folder, limit=args.limit,
        seed=args.seed,
    )  # fmt: skip
    document = {"model": str(args.model), "against": args.dense, **found.as_dict()}
    write_page(args.html, lambda: page_of_evaluation(document))
    shape = text.windows.shape
    emit(document, f"{found}\n{shape[0]} windows of {shape[1]} tokens, {text.source}; {found.seconds:.0f} s", args.json)
