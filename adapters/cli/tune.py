"""`gramian tune`: a model is trained further after it was pruned, and saved."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gramian.adapters.cli.arguments import MakeCommand, add_json
from gramian.adapters.cli.options import add_settings, flags_in, given
from gramian.adapters.cli.types import path, positive
from gramian.adapters.config.tune_config import TuneConfig
from gramian.adapters.files import REPORT
from gramian.adapters.training.places import state_of
from gramian.extras import TRAIN, need

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["add_tune", "tune_model"]

OF_THE_PRUNED = ("files", "fingerprint", "perplexity", "embeddings", "answers", "phases")  # of gramian.json


def add_tune(command: MakeCommand) -> None:
    """Add the command."""
    parser = command(
        "tune",
        "train a pruned model further, with its zeros held",
        "Train a model on text after it was pruned: norms and biases, low-rank updates merged under its zeros, or all\n"
        "weights that are kept; by the next token, or with --teacher by the dense model's distribution over it, too.\n"
        "Zeros remain exactly zero, and smaller models remain as small. Some windows of the text are held out: the weights\n"
        "with the lowest loss on these are saved, in the checkpoint's dtype. gramian.json keeps how the model was pruned.",
        "  gramian tune ./sparse --text text.txt --teacher org/model --out tuned\n"
        "  gramian tune ./sparse --text text.txt --teacher org/model --out tuned --minutes 30\n"
        "  gramian tune ./sparse --text short.txt --teacher org/model --written 96 --out tuned\n"
        "  gramian tune ./small --text text.txt --train lora --rank 32 --epochs 2 --out tuned",
    )
    parser.add_argument("model", metavar="DIR", help="the pruned model: a directory, or what else `prune` takes")
    parser.add_argument("--text", type=path, required=True, metavar="FILE", help="UTF-8 text to train on")
    parser.add_argument(
        "--heldout-text", type=path, metavar="FILE",
        help="hold out --heldout windows of this text instead, as is needed where --text has calibrated the model",
    )  # fmt: skip
    parser.add_argument("--teacher", metavar="MODEL", help="the dense model: a directory, hub id, .gguf file, or `demo`")
    parser.add_argument("--out", type=path, required=True, metavar="DIR2", help="directory for the model that results")
    parser.add_argument("--overwrite", action="store_true", help="replace the model that is in DIR2, and begin again")
    parser.add_argument("--resume", action="store_true", help="go on with the run that was interrupted, from DIR2.tuning")
    parser.add_argument("--length", type=positive, help="tokens in a window (512, or the model's context if that is less)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... (default %(default)s)")
    add_settings(parser, {TuneConfig: "training"})
    add_json(parser)
    parser.set_defaults(run=tune_model, check=check_tune)


def check_tune(args: argparse.Namespace) -> None:
    """Set the settings as `args.tuning`; end with exit code 2 where they are no settings."""
    try:
        args.tuning = TuneConfig(**given(args, TuneConfig))
    except ValueError as error:
        args.usage_error(flags_in(str(error), TuneConfig))
    if args.tuning.written and args.teacher is None:
        args.usage_error(f"--written {args.tuning.written} windows come from a teacher: give --teacher MODEL, the dense model")
    if args.out.expanduser().resolve() == Path(args.model).expanduser().resolve():
        args.usage_error("DIR and --out name the same directory: the tuned model goes elsewhere")


def tune_model(args: argparse.Namespace) -> None:
    """Train a model and save it."""
    need("train", TRAIN, "gramian tune")
    from gramian.adapters.cli.output import emit
    from gramian.adapters.data.context import usual_length
    from gramian.adapters.data.tokens import Tokens
    from gramian.adapters.data.windows import file_windows
    from gramian.adapters.devices import usable_device
    from gramian.adapters.drafts import discard
    from gramian.adapters.models.loading import load
    from gramian.adapters.models.saving import save
    from gramian.adapters.training.tuning import tune
    from gramian.progress import say

    usable_device(args.device)
    say(f"loading {args.model}")
    model, tokenizer = load(args.model)  # in float32, wherever it is trained
    length, count = args.length or usual_length(model, tokenizer), args.tuning.heldout
    windows, other = file_windows(args.text, tokenizer, length), None
    if args.heldout_text is not None:
        other = Tokens(file_windows(args.heldout_text, tokenizer, length, count * length)[:count], str(args.heldout_text))
    teacher = None
    if args.teacher is not None:
        say(f"loading the teacher {args.teacher}")
        teacher, words = load(args.teacher, device=args.device)
        check_words(args, tokenizer, words)
    model.to(args.device)
    state = state_of(args.out)
    if not args.resume:
        discard(state)
    report = tune(
        model, Tokens(windows, str(args.text)), teacher=teacher, heldout_tokens=other, config=args.tuning, state=state,
        resume=args.resume,
    )  # fmt: skip
    entry = {"from": str(args.model), "teacher": args.teacher, "text": str(args.text), **held_text(args), **report.to_dict()}
    document = {**pruned_as(args.model), "tuning": entry}
    saved = save(model, tokenizer, args.out, report=document, overwrite=args.overwrite)
    discard(state)
    emit(entry, f"{report}\n\nsaved to {saved}", args.json)


def held_text(args: argparse.Namespace) -> dict[str, str]:
    """The text that is held out, where it is another."""
    return {} if args.heldout_text is None else {"heldout_text": str(args.heldout_text)}


def check_words(args: argparse.Namespace, own: PreTrainedTokenizerBase | None, other: PreTrainedTokenizerBase | None) -> None:
    """Raise ValueError where a teacher's tokens mean something else."""
    if own is not None and other is not None and own.get_vocab() != other.get_vocab():
        raise ValueError(
            f"{args.teacher} has another tokeniser than {args.model}: the teacher has to be the dense model, or another with "
            "the same vocabulary"
        )


def pruned_as(source: str) -> dict[str, Any]:
    """What `gramian.json` of the pruned model says of how it was made; of other models, their name. Its files, the fingerprint
    of its run, and what was measured of it before and after are not those of the tuned model."""
    report = Path(source).expanduser() / REPORT
    if not report.is_file():
        return {"model": source}
    document: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    return {key: value for key, value in document.items() if key not in OF_THE_PRUNED}
