"""The commands and options of `gramian`, and what they mean. Neither torch nor transformers is imported, so that help comes at
once."""

from __future__ import annotations

import argparse
from importlib.metadata import version
from pathlib import Path

from gramian.adapters.cli.compare import add_compare
from gramian.adapters.cli.contenders import solve_usage
from gramian.adapters.cli.estimate import add_estimate
from gramian.adapters.cli.evaluate import add_evaluate
from gramian.adapters.cli.export import add_export, export_usage
from gramian.adapters.cli.options import add_settings, configs_from
from gramian.adapters.cli.pages import add_html
from gramian.adapters.cli.speed import add_speed
from gramian.adapters.cli.tune import add_tune
from gramian.adapters.cli.types import expression, path, positive
from gramian.adapters.config.prune_config import PruneConfig
from gramian.adapters.config.run_config import DTYPES, RunConfig
from gramian.adapters.data.source_names import has_labels
from gramian.adapters.files import STDOUT

__all__ = ["check_usage", "command_line"]

MEMORY = ("host", "offload", "stream")


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
        added.set_defaults(usage_error=added.error, usage_help=added.format_help)
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
    add_verbose(demo)

    prune = command(
        "prune",
        "prune a language model and save it",
        "Set half of a model's weights (or another part) to zero, layer by layer, so that every layer's output on\n"
        "calibration text changes as little as possible. Embeddings and the head are unchanged. The result loads with\n"
        "`from_pretrained` like the original; gramian.json beside it records how it was made and the layers' errors.\n"
        "Structured methods remove whole attention heads and hidden channels instead, so that the model becomes smaller.",
        "  gramian prune org/model --out sparse                          half of the weights\n"
        "  gramian prune ./model --out sparse --sparsity 2:4             2 of every 4 weights kept\n"
        "  gramian prune ./model --out sparse --method wanda --sparsity 0.6 --calibration text.txt\n"
        "  gramian prune ./model --out small --method numerical --ratio 0.2   a fifth of the blocks' parameters removed\n"
        "  gramian prune ./model --dry-run                               what it would take; nothing is done",
    )
    prune.usage = "gramian prune MODEL --out DIR [--method NAME] [--sparsity S | --ratio R] [options]"
    add_model(prune, dtype=False)
    prune.add_argument(
        "--memory", choices=MEMORY, default="host",
        help="the model in memory (host), in the host's memory with a block at a time on --device (offload), or a block at a "
        "time read from the checkpoint (stream) (%(default)s)",
    )  # fmt: skip
    add_output(prune, "directory for the pruned model; needed unless --dry-run", REPLACING)
    prune.add_argument(
        "--resume", action="store_true", help="go on with the run that was interrupted, from its journal beside DIR"
    )
    prune.add_argument(
        "--recipe", type=path, metavar="FILE", help="settings from a YAML file or a gramian.json; options given here win"
    )
    add_settings(prune, {PruneConfig: "settings of every method", RunConfig: "calibration and saving"})
    prune.add_argument(
        "--evaluate", type=path, metavar="FILE.txt", help="measure perplexity on the first 8 windows of this text"
    )
    prune.add_argument("--no-perplexity", action="store_true", help="do not measure perplexity before and after")
    prune.add_argument("--dry-run", action="store_true", help="check everything, estimate memory and time, stop")
    add_verbose(prune)
    prune.add_argument("--problems", type=path, metavar="DIR", help="write the operators' problems, as they were solved, there")
    add_json(prune)

    add_tune(command)

    listed = command(
        "methods",
        "list the methods, or explain one",
        "List the methods, or say of one what it is for, its options and their defaults, and what it gathers.",
        "  gramian methods\n  gramian methods l0",
    )
    listed.add_argument("name", nargs="?", metavar="NAME", help="a name, or MODULE:NAME")
    add_json(listed)

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

    add_evaluate(command, add_model, add_json)
    add_speed(command, add_model, add_json)

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
    add_settings(capture, {RunConfig: "calibration"}, ("calibration", "samples", "length", "seed"))
    add_settings(capture, {PruneConfig: "operators"}, ("exclude", "blocks"))
    capture.add_argument("--include", type=expression, required=True, metavar="REGEX", help="the operators, by their full name")

    solve = command(
        "solve",
        "solve problem files and compare methods",
        "Solve layer-wise problems from files and print every layer's error, |X* V^T - X W^T|^2 / |X W^T|^2, evaluated in\n"
        "float64 from the answer alone; of several methods, a row for each and their means. The format is described in\n"
        "gramian.adapters.data.problem_files.",
        "  gramian solve problems/*.safetensors --method sparsegpt --sparsity 0.5\n"
        "  gramian solve problems/*.safetensors --method wanda sparsegpt l0 --sparsity 0.5 --per-row\n"
        "  gramian solve problems/*.safetensors --method fistapruner --sparsity 2:4 --heldout heldout --json result.json",
    )
    solve.add_argument("files", nargs="+", type=path, metavar="FILE", help="problem files")
    solve.add_argument(
        "--method", dest="methods", nargs="+", default=["fistapruner"], metavar="NAME",
        help="after the files, one or several that `gramian methods` lists, or MODULE:NAME for one of your own; each takes "
        "those of the given options that it has (fistapruner)",
    )  # fmt: skip
    add_settings(solve, {PruneConfig: "method"}, ("sparsity", "per_row", "options", "damping", "refit"))
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
    add_html(solve)
    add_json(solve)

    compare = add_compare(command)
    add_html(compare)
    add_json(compare)
    add_json(add_export(command))

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
    estimate = add_estimate(command)
    add_model(estimate)
    add_json(estimate)
    return parser


def add_model(parser: argparse.ArgumentParser, dtype: bool = True) -> None:
    """Add the model and where and how it runs. dtype: whether its dtype is added too, where it is no setting."""
    parser.add_argument(
        "model", metavar="MODEL", help="hub id (org/name), local directory, .gguf file, or `demo` for gemma-3-270m"
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ... (default %(default)s)")
    if dtype:
        parser.add_argument(
            "--dtype",
            default="auto",
            choices=DTYPES,
            help="dtype in which weights are stored; on a CPU the model runs in float32 (default: the checkpoint's)",
        )


REPLACING = "replace the model that is in DIR; everything in DIR is deleted"
ADDING = "allow a DIR that is not empty; files of the same name are replaced"


def add_output(
    parser: argparse.ArgumentParser, text: str, replacing: str, *, default: str | None = None, required: bool = False
) -> None:
    """Add a directory to write to. text, replacing: the help of the directory, and of replacing what it holds."""
    parser.add_argument("--out", type=path, default=default, required=required, metavar="DIR", help=text)
    parser.add_argument("--overwrite", action="store_true", help=replacing)


def add_verbose(parser: argparse.ArgumentParser) -> None:
    """Add the choice of the long table of a run."""
    parser.add_argument(
        "--verbose",
        action="store_true",
        help="print every operator, and not the kinds and the ten worst alone where there are many",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add the file that results are written to."""
    parser.add_argument(
        "--json", type=path, metavar="FILE",
        help="write the results there as JSON too; with - the JSON alone is on stdout, and what stands there otherwise is on "
        "stderr",
    )  # fmt: skip


def check_usage(args: argparse.Namespace) -> None:
    """End with exit code 2, bad usage, where options contradict each other. The configurations of commands that have settings
    are set as `args.config` and `args.texts`."""
    if args.command in ("prune", "capture", "estimate"):
        args.config, args.texts = configs_from(args)
    if args.command == "capture" and len(args.texts.sources) > 1:
        args.usage_error("a problem file holds moments of one text: capture each --calibration into a directory of its own")
    if args.command == "prune":
        if args.out is None and not args.dry_run:
            args.usage_error("--out DIR is needed: where the pruned model goes")
        if args.texts.pad and args.config.recipe.granularity == "weights":
            args.usage_error(f"--pad is for methods that remove units, not for {args.config.method}")
        check_recovery(args)
        if any(map(has_labels, args.texts.sources)) and args.evaluate is not None:
            args.usage_error(
                "--evaluate measures perplexity, and of texts with labels it is answers that are measured, on those held out: "
                "leave it out"
            )
        if args.problems is not None and args.config.recipe.granularity == "units":
            args.usage_error(f"--problems is for methods that zero weights, not for {args.config.method}")
        if args.config.jobs > 1 and args.memory != "host":
            args.usage_error(
                f"--jobs {args.config.jobs} and --memory {args.memory} contradict each other: there is one block at a time"
            )
        if args.memory == "stream":
            for flag, present in (
                ("--evaluate", args.evaluate is not None), ("--pad", args.texts.pad),
                ("--calibration self", args.texts.calibration == "self"),
                ("--recovery-calibration self", args.texts.recovery_calibration == "self"),
            ):  # fmt: skip
                if present:
                    args.usage_error(f"{flag} does not go with --memory stream, where no more than one block is in memory")
        if args.dry_run and (args.json or args.problems or args.resume):
            args.usage_error("--dry-run writes nothing: leave out --json, --problems and --resume")
        if args.problems and args.out and overlap(args.problems.absolute(), args.out.absolute()):
            args.usage_error("--problems and --out need separate directories")
        if args.json and any(args.json.absolute() == folder.absolute() for folder in (args.out, args.problems) if folder):
            args.usage_error("--json names a file, and --out and --problems directories: they cannot be the same")
        if args.evaluate is not None and args.no_perplexity:
            args.usage_error("--evaluate and --no-perplexity contradict each other")
    html = getattr(args, "html", None)
    if html is not None and html == STDOUT:
        args.usage_error("--html names a file: only --json can be written to stdout")
    if html is not None and args.json is not None and html.absolute() == args.json.absolute():
        args.usage_error("--html and --json name the same file: choose two")
    if "check" in args:
        args.check(args)
    if args.command == "solve" and (wrong := solve_usage(args)) is not None:
        args.usage_error(wrong)
    if args.command == "export" and (wrong := export_usage(args)) is not None:
        args.usage_error(wrong)


def check_recovery(args: argparse.Namespace) -> None:
    """Report windows for recovery where nothing is fitted on them as bad usage."""
    method, own = args.config.recipe, args.texts.recovery_calibration
    if own is None:
        return
    if method.granularity == "weights" or method.modules == "experts":
        args.usage_error(
            f"--recovery-calibration {own} is for methods that first choose heads and channels, and {args.config.method} "
            "chooses and fits at once: leave it out"
        )
    if not args.config.own("compensate"):
        args.usage_error(
            f"--recovery-calibration {own} changes nothing, as nothing makes up for what {args.config.method} removes: add "
            "--compensate"
        )


def overlap(one: Path, other: Path) -> bool:
    """Whether one directory is the other, or inside it."""
    return one.is_relative_to(other) or other.is_relative_to(one)
