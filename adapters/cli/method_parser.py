"""Methods on the command line: which one, its options, and those of structured methods. Neither torch nor transformers is
imported."""

from __future__ import annotations

import argparse
import json
import math
from typing import Any

from gramian.adapters.cli.types import (
    blocks,
    damping,
    fraction,
    groups,
    method,
    nonnegative,
    number,
    portion,
    positive,
    strength,
)
from gramian.adapters.methods.registry import METHODS, resolve
from gramian.adapters.methods.unit_methods import STRUCTURED_METHODS
from gramian.adapters.methods.vocabulary import ALLOCATIONS, HEADS
from gramian.solvers import Pattern, TopK
from gramian.solvers.support.lasso_rounding import COORDINATES, PENALTIES, WARM_STARTS

__all__ = [
    "add_method",
    "add_removal",
    "damping_of",
    "options_of",
    "pattern_of",
    "removal_of",
    "removal_usage",
    "removes_units",
]

OPTIONS = METHODS["fistapruner"].defaults
RATIO = 0.2  # the part of the parameters inside the blocks that structured methods remove by default


def add_method(parser: argparse.ArgumentParser, *, structured: bool = False) -> None:
    """Add a method and its options. structured: methods that remove units can be given too."""
    group = parser.add_argument_group("method")
    others = f"; structured: {', '.join(STRUCTURED_METHODS)}" if structured else ""
    group.add_argument(
        "--method", type=any_method if structured else method, default="fistapruner",
        help=f"{', '.join(METHODS)}, or MODULE:NAME for a function solve(problem, pattern) of your own, from an installed "
        f"module or one in the current directory{others} (default %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--damping", type=damping, metavar="D",
        help="how little to trust the calibration text: 0, a ridge on the change of the weights relative to each "
        "channel's energy such as 0.03, or auto, which is chosen layer by layer on text set aside (default: the method's own; "
        "structured methods take a number)",
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
        ("--first-lambda", strength, "LAMBDA0", "first lambda, as a part of the one at which all weights are zero"),
        ("--max-lambdas", positive, "N", "try at most N lambdas"),
    ):
        default = OPTIONS[flag[2:].replace("-", "_")]
        paper.add_argument(flag, type=kind, metavar=letter, help=f"{text} (default {default:g})")


def options_of(args: argparse.Namespace) -> dict[str, Any]:
    """Options of the method that are given, by the names that its function has for them."""
    return {name: value for name in OPTIONS if (value := getattr(args, name, None)) is not None}


def damping_of(args: argparse.Namespace) -> float | str:
    """The damping that is given, else the method's own."""
    return resolve(args.method).damping if args.damping is None else args.damping


def pattern_of(args: argparse.Namespace) -> Pattern:
    """The pattern that is given, else the sparsity that is given, met by row or over the whole matrix as the method does."""
    pattern: Pattern | None = args.pattern
    if pattern is not None:
        return pattern
    per_row = resolve(args.method).per_row if args.per_row is None else args.per_row
    return TopK(0.5 if args.sparsity is None else args.sparsity, per_row)


def any_method(text: str) -> str:
    """The name of any method, structured ones included, or `MODULE:NAME`."""
    return text if text in STRUCTURED_METHODS else method(text)


# -- structured methods ------------------------------------------------------------------------------------------------


def add_removal(parser: argparse.ArgumentParser) -> None:
    """Add the options of structured methods."""
    group = parser.add_argument_group("structured methods only")
    group.add_argument(
        "--ratio", type=ratio, metavar="R", help=f"part of the parameters inside the blocks to remove (default {RATIO})"
    )
    group.add_argument(
        "--allocation", choices=ALLOCATIONS,
        help="what decides how many units are removed from each module: the same part of all (uniform), the method's scores, "
        "ranked among attention and among feed-forward modules (per_type) or among all (score), or the error that it causes in "
        "every module's output (loss) (default: the method's own)",
    )  # fmt: skip
    group.add_argument(
        "--compensate", action=argparse.BooleanOptionalAction, default=None,
        help="make up for removed units in the weights or the bias of the operator that sums them (default: the method's own)",
    )  # fmt: skip
    group.add_argument(
        "--refit-producers", action="store_true",
        help="fit the operators before removed units too, to the dense model's outputs, wherever that brings the module nearer",
    )  # fmt: skip
    group.add_argument(
        "--swap-search", action="store_true",
        help="exchange kept units for removed ones while that lowers the loss after compensation, a local search",
    )  # fmt: skip
    group.add_argument(
        "--blocks", type=blocks, metavar="A:B", help="only blocks A to B - 1, as 4:30; the others are unchanged (default: all)"
    )
    group.add_argument(
        "--heads", choices=HEADS,
        help="of grouped-query attention, remove whole key/value groups (groups), or equally many query heads of every group "
        f"(per_kv_group) (default {HEADS[0]})",
    )  # fmt: skip
    group.add_argument(
        "--option", type=named_value, action="append", default=[], metavar="NAME=VALUE",
        help="an option of the method, such as score=newton for numerical; may be repeated",
    )  # fmt: skip
    group.add_argument(
        "--pad", action="store_true",
        help="save with zeros in place of removed units where that is needed for widths that any program loads; the file is "
        "larger for it",
    )  # fmt: skip


def ratio(text: str) -> float:
    """A ratio in (0, 1)."""
    return number(text, float, lambda value: 0 < value < 1, "a ratio above 0 and below 1, as 0.2")


def named_value(text: str) -> tuple[str, Any]:
    """A name and a value, such as `score=newton`; numbers and other values are read as JSON, and `inf` is infinity."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    try:
        return name, math.inf if value == "inf" else json.loads(value)
    except json.JSONDecodeError:
        return name, value


def removes_units(args: argparse.Namespace) -> bool:
    """Whether the method is a structured one, which only `prune` has."""
    return args.command == "prune" and args.method in STRUCTURED_METHODS


def removal_of(args: argparse.Namespace) -> dict[str, Any]:
    """The options of structured methods as keywords of `prune_units`."""
    return {
        "method": args.method,
        "ratio": RATIO if args.ratio is None else args.ratio,
        "allocation": args.allocation,
        "options": dict(args.option),
        "compensate": args.compensate,
        "calibrate_on": args.calibrate_on,
        "target_blend": args.target_blend,
        "damping": args.damping,
        "refit_producers": args.refit_producers,
        "swap_search": args.swap_search,
        "heads": args.heads or HEADS[0],
        "include": args.include,
        "exclude": args.exclude,
        "blocks": args.blocks,
    }


def removal_usage(args: argparse.Namespace) -> str | None:
    """The message that options of `prune` belong to the other kind of method, or to no method; None if they do not."""
    of_weights = {
        "--sparsity": args.sparsity is not None,
        "--pattern": args.pattern is not None,
        "--per-row" if args.per_row else "--whole-matrix": args.per_row is not None,
        "--refit": args.refit,
        "--target": args.target is not None,
        "--jobs": args.jobs > 1,
        "--problems": args.problems is not None,
        "--damping auto": args.damping == "auto",
        **{f"--{name.replace('_', '-')}": True for name in options_of(args)},
    }
    of_units = {
        "--ratio": args.ratio is not None,
        "--allocation": args.allocation is not None,
        "--compensate" if args.compensate else "--no-compensate": args.compensate is not None,
        "--refit-producers": args.refit_producers,
        "--swap-search": args.swap_search,
        "--blocks": args.blocks is not None,
        "--heads": args.heads is not None,
        "--option": bool(args.option),
        "--pad": args.pad,
    }
    structured = removes_units(args)
    for flag, given in (of_weights if structured else of_units).items():
        if given and structured:
            return f"{flag} is for methods that zero single weights: {args.method} removes whole heads and channels"
        if given:
            return f"{flag} is for structured methods ({', '.join(STRUCTURED_METHODS)}), not for {args.method}"
    if structured:
        recipe = STRUCTURED_METHODS[args.method]
        if args.refit_producers and (args.calibrate_on or recipe.calibrate_on) == "dense":
            return "--refit-producers needs --calibrate-on pruned: with dense inputs nothing drifts that could be fitted"
        compensates = recipe.compensate if args.compensate is None else args.compensate
        if args.swap_search and not (compensates and recipe.compensation == "weights"):
            return "--swap-search needs the other weights to be solved for: --compensate, and not flap"
        if args.refit_producers and args.target_blend not in (None, 1):
            return "--refit-producers needs --target-blend 1: two producers compare on one target only"
        try:
            recipe.bind(dict(args.option))
        except ValueError as error:
            return f"--option: {error}"
    return None
