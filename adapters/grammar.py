"""What can be asked of the `gramian` command: commands, options, and what they mean. Imports neither torch nor
transformers, so that help comes at once."""

from __future__ import annotations

import argparse
from importlib.metadata import version
from pathlib import Path
from typing import Any

from gramian.adapters.argument_types import (
    damping,
    expression,
    fraction,
    groups,
    method,
    natural,
    nonnegative,
    portion,
    positive,
    strength,
)
from gramian.adapters.methods import METHODS, resolve
from gramian.adapters.methods.fistapruner import COORDINATES, PENALTIES, WARM_STARTS
from gramian.solvers import Pattern, TopK

__all__ = ["check_usage", "command_line", "damping_of", "options_of", "pattern_of"]

OPTIONS = METHODS["fistapruner"].defaults


def command_line() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gramian",
        description="Make language models sparse, one layer at a time, with a certificate on every answer.",
        epilog="`gramian COMMAND --help` explains a command. To see it all at work: gramian demo",
    )
    parser.add_argument("--version", action="version", version=f"gramian {version('gramian')}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of an error and what libraries print")

    def command(name: str, summary: str, description: str, examples: str) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name,
            help=summary,
            description=description,
            epilog=f"examples:\n{examples}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            parents=[common],
        )
        added.set_defaults(usage_error=added.error)
        return added

    demo = command(
        "demo",
        "prune a small real language model and show what it cost",
        "Prune gemma-3-270m (from the extra `demo`) to 50 % zeros with FISTAPruner, calibrated on English text that\n"
        "ships with Python; print perplexity before and after and what every layer lost; save the pruned model.\n"
        "Minutes on two cores.",
        "  gramian demo\n  gramian demo --out sparse-gemma",
    )
    add_output(demo, "directory for the pruned model (default %(default)s)", REPLACING, default="gramian-demo")

    prune = command(
        "prune",
        "prune a language model and save it",
        "Set half of a model's weights (or another part) to zero, layer by layer, so that every layer's output on\n"
        "calibration text changes as little as possible. Embeddings and the head stay as they are. The result loads\n"
        "with `from_pretrained` like the original; gramian.json beside it records how it was made and what it lost.",
        "  gramian prune org/model --out sparse                          half of the weights\n"
        "  gramian prune ./model --out sparse --pattern 2:4              2 of every 4 weights kept\n"
        "  gramian prune ./model --out sparse --method wanda --sparsity 0.6 --calibration text.txt\n"
        "  gramian prune ./model --dry-run                               what it would take, nothing done",
    )
    add_model(prune)
    add_output(prune, "directory for the pruned model; needed unless --dry-run", REPLACING)
    add_method(prune)
    prune.add_argument(
        "--inputs",
        choices=("dense", "pruned"),
        help="what enters a block: activations of the dense model (blocks are independent) or of the model pruned so "
        "far (default: the method's own)",
    )
    prune.add_argument(
        "--correction",
        choices=("none", "layer", "model"),
        help="what an operator's output should match: what its own input gives (none), what the dense block gives "
        "(layer), what the dense model gives (model) (default: the method's own)",
    )
    add_calibration(prune)
    prune.add_argument(
        "--heldout",
        type=natural,
        metavar="N",
        help="windows of the same source that errors and perplexity are measured on, apart from calibration; "
        "perplexity on the first 8 (default: an eighth of --samples, at least 1; 0 for none)",
    )
    prune.add_argument(
        "--evaluate", type=Path, metavar="FILE.txt", help="measure perplexity on this text instead, its first 8 windows"
    )
    prune.add_argument("--no-perplexity", action="store_true", help="do not measure perplexity before and after")
    add_choice(prune)
    prune.add_argument(
        "--jobs", type=positive, default=1, metavar="N", help="blocks pruned at once; needs dense inputs (default 1)"
    )
    prune.add_argument(
        "--dry-run", action="store_true", help="check everything, list operators, estimate memory and time, stop"
    )
    prune.add_argument(
        "--problems", type=Path, metavar="DIR", help="write every operator's problem, as it was solved, as a problem file there"
    )
    add_json(prune)

    perplexity = command(
        "perplexity",
        "measure how well a language model predicts a text",
        "Perplexity of a model on a text: exp of the mean negative log-likelihood per token, over consecutive windows,\n"
        "each after the begin token if the tokeniser has one. Lower is better; compare equal lengths only.",
        "  gramian perplexity org/model --text book.txt\n"
        "  gramian perplexity ./sparse --text book.txt --length 512 --windows 8",
    )
    add_model(perplexity)
    perplexity.add_argument("--text", type=Path, required=True, metavar="FILE", help="UTF-8 text")
    perplexity.add_argument(
        "--length", type=positive, help="tokens in a window (default 1024, or the model's context if that is less)"
    )
    perplexity.add_argument("--windows", type=positive, metavar="N", help="only the first N windows (default: all)")
    add_json(perplexity)

    capture = command(
        "capture",
        "write layers as problem files for research",
        "Run calibration text through a model and write one safetensors file per operator: its weight and the mean of\n"
        "x x^T over its inputs, which is all a layer-wise method needs. `gramian solve` reads them, without the model.",
        "  gramian capture org/model --include 'layers\\.(0|8)\\..*down_proj' --out problems\n"
        "  gramian capture org/model --include down_proj --calibration other.txt --out heldout",
    )
    add_model(capture)
    add_output(capture, "directory for the files", ADDING, required=True)
    add_calibration(capture)
    add_choice(capture, required=True)

    solve = command(
        "solve",
        "solve problem files and compare methods",
        "Solve layer-wise problems from files and print what every layer lost: |X* V^T - X W^T|^2 / |X W^T|^2, judged in\n"
        "float64 from the answer alone. The format is described in gramian.adapters.problemfile.",
        "  gramian solve problems/*.safetensors --method sparsegpt --sparsity 0.5\n"
        "  gramian solve problems/*.safetensors --method fistapruner --pattern 2:4 --heldout heldout --json result.json",
    )
    solve.add_argument("files", nargs="+", type=Path, metavar="FILE", help="problem files")
    add_method(solve)
    solve.add_argument(
        "--heldout",
        nargs="+",
        type=Path,
        default=[],
        metavar="PATH",
        help="files, or directories of files, named like the problems and holding `gram_upper` of other text",
    )
    add_output(solve, "directory for the solutions: files named like the problems, with the tensor `weight`", ADDING)
    add_json(solve)

    verify = command(
        "verify",
        "check what the papers claim",
        "Check the ledger of published claims: what holds on drawn instances, what holds under further hypotheses, and\n"
        "what a counterexample refutes, in exact arithmetic. Wrong versions of every formula (mutants) have to be caught.\n"
        "A minute or two for all. Needs the extra `proofs`.",
        "  gramian verify\n  gramian verify --claims N15 F7 --examples 1000 --json claims.json",
    )
    verify.add_argument("--claims", nargs="+", metavar="ID", help="only these, such as N15 F7 (default: all)")
    verify.add_argument(
        "--examples", type=positive, default=100, metavar="N",
        help="instances of every property; mutants get 100 at least (default %(default)s)",
    )  # fmt: skip
    add_json(verify)
    return parser


def add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", metavar="MODEL", help="hub id (org/name), local directory, .gguf file, or `demo` for gemma-3-270m"
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... (default %(default)s)")
    parser.add_argument(
        "--dtype",
        default="auto",
        choices=("auto", "float32", "bfloat16", "float16"),
        help="in which weights are stored; on a CPU the model runs in float32 regardless (default: the checkpoint's)",
    )


REPLACING = "replace the model that is in DIR; everything there is deleted"
ADDING = "allow a DIR that is not empty; files of the same name are replaced"


def add_output(
    parser: argparse.ArgumentParser, text: str, replacing: str, *, default: str | None = None, required: bool = False
) -> None:
    parser.add_argument("--out", type=Path, default=default, required=required, metavar="DIR", help=text)
    parser.add_argument("--overwrite", action="store_true", help=replacing)


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there as JSON too")


def add_choice(parser: argparse.ArgumentParser, *, required: bool = False) -> None:
    parser.add_argument(
        "--include", type=expression, required=required, metavar="REGEX",
        help="only operators whose full name, such as model.layers.3.mlp.down_proj, matches somewhere",
    )  # fmt: skip
    parser.add_argument("--exclude", type=expression, metavar="REGEX", help="but not those whose name matches this")


def add_calibration(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("calibration text")
    group.add_argument(
        "--calibration", default="builtin", metavar="SOURCE",
        help="builtin (English that ships with Python), FILE.txt, FILE.safetensors (an integer tensor `tokens`, one "
        "window a row), or hf:DATASET[:CONFIG][:SPLIT] (extra `datasets`) (default %(default)s)",
    )  # fmt: skip
    group.add_argument("--samples", type=positive, default=32, metavar="N", help="windows (default %(default)s)")
    group.add_argument("--length", type=positive, default=512, metavar="N", help="tokens in a window (default %(default)s)")
    group.add_argument("--seed", type=natural, default=0, help="which windows, where the source has more (default %(default)s)")


def add_method(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("method")
    group.add_argument(
        "--method", type=method, default="fistapruner",
        help=f"{', '.join(METHODS)}, or MODULE:NAME for a function solve(problem, pattern) of your own, from an installed "
        "module or one in the current directory (default %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--damping", type=damping, metavar="D",
        help="how little to trust the calibration text: 0, a ridge on the change of the weights relative to each "
        "channel's energy such as 0.03, or auto, chosen layer by layer on text set aside (default: the method's own)",
    )  # fmt: skip
    group.add_argument(
        "--refit", action="store_true", help="at the end, solve for the best weights at the positions the method kept"
    )
    target = group.add_mutually_exclusive_group()
    target.add_argument(
        "--sparsity", type=fraction, metavar="S", help="part of the weights to set to zero, 0 <= S < 1 (default 0.5)"
    )
    target.add_argument("--pattern", type=groups, metavar="N:M", help="keep N of every M consecutive weights of a row, as 2:4")
    grouping = group.add_mutually_exclusive_group()
    grouping.add_argument(
        "--per-row", dest="per_row", action="store_true", default=None,
        help="meet the sparsity in every row of a weight (default for wanda)",
    )  # fmt: skip
    grouping.add_argument(
        "--whole-matrix", dest="per_row", action="store_false",
        help="meet the sparsity over a weight as a whole (default for the others)",
    )  # fmt: skip
    paper = parser.add_argument_group("fistapruner only")
    for flag, choices, text in (
        ("--warm-start", WARM_STARTS, "where the search starts"),
        ("--coordinates", COORDINATES, "run and round in channels scaled to unit norm, or in the weights as they are"),
        ("--l1", PENALTIES, "penalty lambda |v_j|, or lambda |v_j| times the norm of channel j"),
    ):
        paper.add_argument(flag, choices=choices, help=f"{text} (default {OPTIONS[flag[2:].replace('-', '_')]})")
    for flag, kind, letter, text in (
        ("--inner-steps", positive, "K", "FISTA steps for each lambda"),
        ("--patience", positive, "T", "end after T lambdas in a row without improvement"),
        ("--threshold", portion, "XI", "raise lambda when rounding makes more than this part of the error"),
        ("--tolerance", nonnegative, "EPSILON", "end when an improvement is relatively smaller than this"),
        ("--first-lambda", strength, "LAMBDA0", "first lambda, as a part of the one that prunes everything"),
        ("--visits", positive, "N", "try at most N lambdas"),
    ):
        default = OPTIONS[flag[2:].replace("-", "_")]
        paper.add_argument(flag, type=kind, metavar=letter, help=f"{text} (default {default:g})")


def options_of(asked: argparse.Namespace) -> dict[str, Any]:
    """The method's options that were given, by the names that its function has for them."""
    return {name: value for name in OPTIONS if (value := getattr(asked, name, None)) is not None}


def damping_of(asked: argparse.Namespace) -> float | str:
    """What was asked for, else what the method does by default."""
    return resolve(asked.method).damping if asked.damping is None else asked.damping


def pattern_of(asked: argparse.Namespace) -> Pattern:
    """What was asked for, grouped as the method does by default."""
    if asked.pattern is not None:
        return asked.pattern
    per_row = resolve(asked.method).per_row if asked.per_row is None else asked.per_row
    return TopK(0.5 if asked.sparsity is None else asked.sparsity, per_row)


def check_usage(asked: argparse.Namespace) -> None:
    """Options that contradict each other are bad usage, exit code 2."""
    if asked.command in ("prune", "solve"):
        if asked.method != "fistapruner" and (given := options_of(asked)):
            asked.usage_error(f"--{next(iter(given)).replace('_', '-')} is an option of fistapruner, not of {asked.method}")
        if asked.pattern is not None and asked.per_row is not None:
            asked.usage_error("--per-row and --whole-matrix go with --sparsity; an n:m pattern has groups of its own")
    if asked.command == "prune":
        if asked.out is None and not asked.dry_run:
            asked.usage_error("--out DIR is needed: where the pruned model goes")
        inputs = asked.inputs or resolve(asked.method).inputs
        if asked.jobs > 1 and inputs == "pruned":
            asked.usage_error(f"--jobs {asked.jobs} needs --inputs dense: a block with pruned inputs waits for those before it")
        if asked.dry_run and (asked.json or asked.problems):
            asked.usage_error("--dry-run writes nothing: leave out --json and --problems")
        if asked.problems and asked.out and overlap(asked.problems.absolute(), asked.out.absolute()):
            asked.usage_error("--problems and --out need separate directories")
        if asked.evaluate is not None and asked.no_perplexity:
            asked.usage_error("--evaluate and --no-perplexity contradict each other")


def overlap(one: Path, other: Path) -> bool:
    return one.is_relative_to(other) or other.is_relative_to(one)
