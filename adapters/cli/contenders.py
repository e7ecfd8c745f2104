"""The methods that `gramian solve` compares: each with the options that it has, with its own pattern and damping, and with a
place for its solutions."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gramian.adapters.cli.options import flags_in, given
from gramian.adapters.config.prune_config import PruneConfig
from gramian.adapters.methods.registry import resolve
from gramian.solvers import Pattern
from gramian.solvers.support.damped import DampedMethod
from gramian.spelling import meant

__all__ = ["Contender", "contenders_of", "patterns_of", "solution_files", "solve_usage"]


@dataclass(frozen=True)
class Contender:
    """One method as it runs. options: those that are given and that it has. solve: the method on problems of the pattern.
    wrapped: whether a core has the zeros, and the weights none."""

    name: str
    options: Mapping[str, Any]
    pattern: Pattern
    solve: DampedMethod
    wrapped: bool = False


def contenders_of(args: argparse.Namespace) -> list[Contender]:
    """Prepare the methods in the order given. ValueError: an option out of range, and what `resolve` raises."""
    return [contender(config) for config in configs_of(args)]


def configs_of(args: argparse.Namespace) -> list[PruneConfig]:
    """The settings of every method, each with those of the options that it has. ValueError for methods of units."""
    values = given(args, PruneConfig)
    options, configs = values.pop("options", {}), []
    for name in args.methods:
        if resolve(name).granularity == "units":
            raise ValueError(f"{name} removes whole heads and channels of a model: take a method that zeroes single weights")
        if values.get("refit") == "block":
            raise ValueError("refit='block' needs a model, of whose blocks a problem is one operator: take 'support'")
        configs.append(PruneConfig(**{"method": name, "options": own_options(name, options), **values}))
    return configs


def patterns_of(args: argparse.Namespace) -> list[Pattern]:
    """The pattern of every method: some meet a sparsity in every row by default, others over the whole matrix."""
    return [pattern_of(config) for config in configs_of(args)]


def pattern_of(config: PruneConfig) -> Pattern:
    """The pattern of all problems."""
    (pattern,) = config.amounts.kinds(config.own("per_row"))
    return pattern


def contender(config: PruneConfig) -> Contender:
    """Prepare one method."""
    solve = config.recipe.of_weights(config.options, None)
    damped = DampedMethod(solve, config.own("damping") or 0.0, config.refit == "support")
    return Contender(config.method, config.options, pattern_of(config), damped, config.recipe.wrapped)


def own_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the options that the method of this name has."""
    return {option: value for option, value in options.items() if option in resolve(name).defaults}


def foreign_options(names: Sequence[str], options: Iterable[str]) -> list[str]:
    """Those of the options that no method of these names has."""
    return [option for option in options if not any(option in resolve(name).defaults for name in names)]


def solution_files(out: Path, names: Sequence[str], files: Sequence[Path]) -> dict[tuple[str, Path], Path]:
    """Where the solution of every method and problem goes: `out/file`, or with several methods `out/method/file`."""
    homes = {name: out / name if len(names) > 1 else out for name in names}
    return {(name, file): home / file.name for name, home in homes.items() for file in files}


def solve_usage(args: argparse.Namespace) -> str | None:
    """What is wrong with the options of `solve` as they are given together, None if nothing is."""
    names: list[str] = args.methods
    if len(set(names)) < len(names):
        return f"--method names {next(name for name in names if names.count(name) > 1)} twice"
    if foreign := foreign_options(names, given(args, PruneConfig).get("options", {})):
        have = "; ".join(f"{name} has {', '.join(resolve(name).defaults) or 'none'}" for name in names)
        near = meant(foreign[0], [option for name in names for option in resolve(name).defaults])
        return f"no method that is given has the option {foreign[0]}{near}: {have}"
    try:
        configs_of(args)
    except ValueError as error:
        if not any(":" in name for name in names):  # else it may be the method that is at fault
            return flags_in(str(error))
        raise
    written = [file for file in (args.json, args.html) if file]
    written += solution_files(args.out, names, args.files).values() if args.out else []
    read = {file.resolve() for file in args.files} | {place.resolve() for place in args.heldout}
    read |= {(place / file.name).resolve() for place in args.heldout for file in args.files}
    for file in written:
        if file.resolve() in read:
            return f"{file} is a problem that is read, and would be overwritten: choose another --out, --json or --html"
    return None
