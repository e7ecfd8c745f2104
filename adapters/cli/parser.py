"""The commands and options of `gramian`, and what they mean. Neither torch nor transformers is imported, so that help comes at
once."""

from __future__ import annotations

import argparse
from importlib.metadata import version
from pathlib import Path

from gramian.adapters.cli.contenders import solve_usage
from gramian.adapters.cli.method_parser import (
    add_method,
    add_removal,
    damping_of,
    options_of,
    pattern_of,
    removal_usage,
    removes_units,
)
from gramian.adapters.cli.types import expression, method, natural, path, positive, target_blend
from gramian.adapters.methods.registry import METHODS, resolve

__all__ = ["check_usage", "command_line", "damping_of", "options_of", "pattern_of"]


def command_line() -> argparse.ArgumentParser:
    """Build the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="gramian",
        description="Make language models sparse, one layer at a time, with a certificate on every answer.",
        epilog="`gramian COMMAND --help` explains a command. To see it all at work: gramian demo",
    )
    parser.add_argument("--version", action="version", version=f"gramian {version('gramian')}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--quiet", action="store_true", help="results and errors only: no progress and no remarks, which go to stderr"
    )
    common.add_argument("--debug", action="store_true", help="show the traceback of an error and what libraries print")

    def command(name: str, summary: str, description: str, examples: str) -> argparse.ArgumentParser:
        """Add a command."""
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
        "ships with Python; print perplexity before and after and the error of every layer; save the pruned model.\n"
        "Minutes on two cores.",
        "  gramian demo\n  gramian demo --out sparse-gemma",
    )
    add_output(demo, "directory for the pruned model (default %(default)s)", REPLACING, default="gramian-demo")

    prune = command(
        "prune",
        "prune a language model and save it",
        "Set half of a model's weights (or another part) to zero, layer by layer, so that every layer's output on\n"
        "calibration text changes as little as possible. Embeddings and the head are unchanged. The result loads with\n"
        "`from_pretrained` like the original; gramian.json beside it records how it was made and the layers' errors.\n"
        "Structured methods remove whole attention heads and hidden channels instead, so that the model becomes smaller.",
        "  gramian prune org/model --out sparse                          half of the weights\n"
        "  gramian prune ./model --out sparse --pattern 2:4              2 of every 4 weights kept\n"
        "  gramian prune ./model --out sparse --method wanda --sparsity 0.6 --calibration text.txt\n"
        "  gramian prune ./model --out small --method numerical --ratio 0.2   a fifth of the blocks' parameters removed\n"
        "  gramian prune ./model --dry-run                               what it would take; nothing is done",
    )
    add_model(prune)
    prune.add_argument(
        "--offload", action="store_true",
        help="keep the model in the host's memory, in float32, and bring one block at a time to --device, for models larger "
        "than the device's memory; perplexity is measured on the host (or --no-perplexity)",
    )  # fmt: skip
    prune.add_argument(
        "--stream", action="store_true",
        help="read one block at a time from the checkpoint (stock safetensors weights) and write it out pruned, for models "
        "larger than memory; not for structured methods, and perplexity is not measured",
    )  # fmt: skip
    add_output(prune, "directory for the pruned model; needed unless --dry-run", REPLACING)
    add_method(prune, structured=True)
    add_removal(prune)
    prune.add_argument(
        "--calibrate-on",
        choices=("dense", "pruned"),
        help="what enters a block: activations of the dense model (blocks are then independent) or of the model pruned so "
        "far (default: the method's own); structured methods with pruned inputs fit towards the dense model's outputs",
    )
    prune.add_argument(
        "--target",
        choices=("own", "block", "model"),
        help="what an operator's output should match: what its own input gives with the dense weights (own), what the dense "
        "block gives (block), what the dense model gives (model) (default: the method's own)",
    )
    prune.add_argument(
        "--target-blend", type=target_blend, metavar="S",
        help="how far the target goes, above 0 to 1, from what the operator's own input gives to what the dense block or "
        "model gives; structured methods with pruned inputs go towards the dense model (default: the method's own)",
    )  # fmt: skip
    add_calibration(prune)
    prune.add_argument(
        "--heldout",
        type=natural,
        metavar="N",
        help="windows of the same source that are not calibrated on: errors are measured on them, and perplexity on the "
        "first 8 (default: an eighth of --samples, at least 1; 0 for none)",
    )
    prune.add_argument(
        "--evaluate", type=path, metavar="FILE.txt", help="measure perplexity on this text instead, its first 8 windows"
    )
    prune.add_argument("--no-perplexity", action="store_true", help="do not measure perplexity before and after")
    add_choice(prune)
    prune.add_argument(
        "--jobs", type=positive, default=1, metavar="N", help="blocks pruned at once; needs --calibrate-on dense (default 1)"
    )
    prune.add_argument(
        "--dry-run", action="store_true", help="check everything, list operators, estimate memory and time, stop"
    )
    prune.add_argument(
        "--problems", type=path, metavar="DIR", help="write every operator's problem, as it was solved, as a problem file there"
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
    perplexity.add_argument("--text", type=path, required=True, metavar="FILE", help="UTF-8 text")
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
        "Solve layer-wise problems from files and print every layer's error, |X* V^T - X W^T|^2 / |X W^T|^2, evaluated in\n"
        "float64 from the answer alone; of several methods, a row for each and their means. The format is described in\n"
        "gramian.adapters.data.problem_files.",
        "  gramian solve problems/*.safetensors --method sparsegpt --sparsity 0.5\n"
        "  gramian solve problems/*.safetensors --method wanda sparsegpt l0 --sparsity 0.5 --per-row\n"
        "  gramian solve problems/*.safetensors --method fistapruner --pattern 2:4 --heldout heldout --json result.json",
    )
    solve.add_argument("files", nargs="+", type=path, metavar="FILE", help="problem files")
    add_method(solve)
    compared = solve.add_argument_group("methods to compare", conflict_handler="resolve")  # in place of the one of `prune`
    compared.add_argument(
        "--method", dest="methods", nargs="+", type=method, default=["fistapruner"], metavar="METHOD",
        help=f"after the files, one or several of {', '.join(METHODS)}, or MODULE:NAME for a function solve(problem, pattern) "
        "of your own; each takes those of the given options that it has (default: fistapruner)",
    )  # fmt: skip
    solve.add_argument(
        "--heldout",
        nargs="+",
        type=path,
        default=[],
        metavar="PATH",
        help="files, or directories of files, that are named like the problems and hold `gram_upper` of other text",
    )
    add_output(
        solve,
        "directory for the solutions: files named like the problems, with the tensor `weight`; with several "
        "methods they are in DIR/METHOD",
        ADDING,
    )
    add_json(solve)

    verify = command(
        "verify",
        "check what the papers claim",
        "Check the ledger of published claims: which hold on drawn instances, which hold under further hypotheses, and\n"
        "which a counterexample refutes, in exact arithmetic. Wrong versions of every formula (mutants) have to be caught.\n"
        "All of them take a minute or two. The extra `proofs` is needed.",
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
    """Add the model and where and how it runs."""
    parser.add_argument(
        "model", metavar="MODEL", help="hub id (org/name), local directory, .gguf file, or `demo` for gemma-3-270m"
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... (default %(default)s)")
    parser.add_argument(
        "--dtype",
        default="auto",
        choices=("auto", "float32", "bfloat16", "float16"),
        help="the dtype in which weights are stored; on a CPU the model runs in float32 regardless (default: the checkpoint's)",
    )


REPLACING = "replace the model that is in DIR; everything in DIR is deleted"
ADDING = "allow a DIR that is not empty; files of the same name are replaced"


def add_output(
    parser: argparse.ArgumentParser, text: str, replacing: str, *, default: str | None = None, required: bool = False
) -> None:
    """Add a directory to write to. text, replacing: the help of the directory, and of replacing what it holds."""
    parser.add_argument("--out", type=path, default=default, required=required, metavar="DIR", help=text)
    parser.add_argument("--overwrite", action="store_true", help=replacing)


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add the file that results are written to."""
    parser.add_argument(
        "--json", type=path, metavar="FILE",
        help="write the results there as JSON too; with - the JSON alone is on stdout, and what stands there otherwise is on "
        "stderr",
    )  # fmt: skip


def add_choice(parser: argparse.ArgumentParser, *, required: bool = False) -> None:
    """Add the operators to work on."""
    parser.add_argument(
        "--include", type=expression, required=required, metavar="REGEX",
        help="only operators whose full name, such as model.layers.3.mlp.down_proj, matches somewhere",
    )  # fmt: skip
    parser.add_argument("--exclude", type=expression, metavar="REGEX", help="not operators whose name matches this somewhere")


def add_calibration(parser: argparse.ArgumentParser) -> None:
    """Add the calibration text."""
    group = parser.add_argument_group("calibration text")
    group.add_argument(
        "--calibration", default="builtin", metavar="SOURCE",
        help="builtin (English that ships with Python), self (sampled from the model), FILE.txt, FILE.safetensors (an integer "
        "tensor `tokens`, one window a row), or hf:DATASET[:CONFIG][:SPLIT] (extra `datasets`) (default %(default)s)",
    )  # fmt: skip
    group.add_argument("--samples", type=positive, default=32, metavar="N", help="windows (default %(default)s)")
    group.add_argument("--length", type=positive, default=512, metavar="N", help="tokens in a window (default %(default)s)")
    group.add_argument("--seed", type=natural, default=0, help="which windows, where the source has more (default %(default)s)")


def check_usage(args: argparse.Namespace) -> None:
    """End with exit code 2, bad usage, where options contradict each other."""
    if args.command in ("prune", "solve"):
        if args.pattern is not None and args.per_row is not None:
            args.usage_error("--per-row and --whole-matrix go with --sparsity; an n:m pattern has groups of its own")
    if args.command == "prune":
        if args.method != "fistapruner" and not removes_units(args) and (given := options_of(args)):
            args.usage_error(f"--{next(iter(given)).replace('_', '-')} is an option of fistapruner, not of {args.method}")
        if (wrong := removal_usage(args)) is not None:
            args.usage_error(wrong)
        if args.out is None and not args.dry_run:
            args.usage_error("--out DIR is needed: where the pruned model goes")
        calibrate_on = args.calibrate_on or ("dense" if removes_units(args) else resolve(args.method).calibrate_on)
        if args.jobs > 1 and calibrate_on == "pruned":
            args.usage_error(
                f"--jobs {args.jobs} needs --calibrate-on dense: a block with pruned inputs waits for those before it"
            )
        if args.jobs > 1 and args.offload:
            args.usage_error(f"--jobs {args.jobs} and --offload contradict each other: one block at a time is on the device")
        if args.stream:
            for flag, present in (
                ("--offload", args.offload), ("--jobs", args.jobs > 1), ("--dry-run", args.dry_run),
                ("--evaluate", args.evaluate is not None), ("--calibration self", args.calibration == "self"),
                (f"--method {args.method}", removes_units(args)),
            ):  # fmt: skip
                if present:
                    args.usage_error(f"{flag} does not go with --stream, where no more than one block is in memory")
        if args.dry_run and (args.json or args.problems):
            args.usage_error("--dry-run writes nothing: leave out --json and --problems")
        if args.problems and args.out and overlap(args.problems.absolute(), args.out.absolute()):
            args.usage_error("--problems and --out need separate directories")
        if args.json and any(args.json.absolute() == folder.absolute() for folder in (args.out, args.problems) if folder):
            args.usage_error("--json names a file, and --out and --problems directories: they cannot be the same")
        if args.evaluate is not None and args.no_perplexity:
            args.usage_error("--evaluate and --no-perplexity contradict each other")
    if args.command == "solve" and (wrong := solve_usage(args)) is not None:
        args.usage_error(wrong)


def overlap(one: Path, other: Path) -> bool:
    """Whether one directory is the other, or inside it."""
    return one.is_relative_to(other) or other.is_relative_to(one)
