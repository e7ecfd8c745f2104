"""Settings as options of a command, and back. Neither torch nor transformers is imported."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from gramian.adapters.config.amounts import named_amount
from gramian.adapters.config.prune_config import PruneConfig
from gramian.adapters.config.recipes import configs_of, read_recipe
from gramian.adapters.config.run_config import RunConfig
from gramian.adapters.config.settings import FLAG, OPTIONS, SOURCES, Setting, named_value, named_weight, settings_of

__all__ = ["add_settings", "configs_from", "flags_in", "given"]

TITLES = {None: "{}", "weights": "methods that zero weights", "units": "methods that remove units"}


def add_settings(parser: argparse.ArgumentParser, configs: Mapping[type, str], only: Collection[str] | None = None) -> None:
    """Add an option for every setting of some configurations, or for some of them; those of one kind of method are grouped.

    configs: each configuration with the title of its settings that go with every method."""
    groups: dict[str, argparse._ArgumentGroup] = {}
    for config, title in configs.items():
        for each in settings_of(config):
            if only is None or each.name in only:
                name = TITLES[each.of].format(title)
                if name not in groups:
                    groups[name] = parser.add_argument_group(name)
                add_setting(groups[name], each, by_name=only is None)


def add_setting(group: argparse._ArgumentGroup, each: Setting, by_name: bool) -> None:
    """Add the option of one setting. Without it the value is None, which leaves the setting to a recipe or to its default.

    by_name: whether there are names of operators that amounts can go by."""
    text = re.split(r"[;:] ", each.help)[0].replace("%", "%%")
    usual = each.default if each.default not in (None, False, {}) else each.usual
    if usual not in (None, False):
        text += f" ({usual})" if each.default is not None else f" (usually {usual})"
    if each.kind is OPTIONS:
        group.add_argument(
            str(each.repeated), dest=each.name, action="append", type=typed(named_value), metavar=each.kind.metavar, help=text
        )
    elif each.kind is SOURCES:
        group.add_argument(
            each.flag, dest=each.name, action="append", type=typed(named_weight), metavar=each.kind.metavar, help=text
        )
    elif each.kind is FLAG:
        group.add_argument(each.flag, dest=each.name, action=argparse.BooleanOptionalAction, default=None, help=text)
    else:
        group.add_argument(
            each.flag, dest=each.name, type=typed(each.kind.parse), choices=each.kind.choices or None,
            metavar=each.kind.metavar, help=text,
        )  # fmt: skip
        if each.repeated and by_name:
            group.add_argument(
                each.repeated, dest=f"{each.name}_of", action="append", type=typed(named_amount), metavar="REGEX=S",
                help="the same for operators whose name matches, the first match holds",
            )  # fmt: skip


def typed(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """A parser's function that tells argparse what is wrong."""

    def read(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return read


def given(args: argparse.Namespace, *configs: type) -> dict[str, Any]:
    """The settings of some configurations that options give, by name."""
    values = {
        each.name: value
        for config in configs
        for each in settings_of(config)
        if (value := getattr(args, each.name, None)) is not None
    }
    if "calibration" in values:
        values["calibration"] = sources_of(values["calibration"])
    if "options" in values:
        values["options"] = dict(values["options"])
    if getattr(args, "sparsity_of", None):
        rest = {"*": values["sparsity"]} if "sparsity" in values else {}
        values["sparsity"] = {**dict(args.sparsity_of), **rest}
    return values


def sources_of(named: list[Any]) -> Any:
    """What calibrates: the last source that is given, as of any option, or all of them with their weights."""
    if all(isinstance(each, str) for each in named):
        return named[-1]
    if bare := [each for each in named if isinstance(each, str)]:
        raise ValueError(f"calibration={bare[0]!r} has no weight and others have: give each as SOURCE=WEIGHT")
    names = [name for name, _ in named]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"calibration={twice[0]!r} is given twice: give it once, with its whole weight")
    return dict(named)


def configs_from(args: argparse.Namespace) -> tuple[PruneConfig, RunConfig]:
    """The configurations of a command: its options, and what these leave open from its recipe.

    Options of a method go with the method, so those of a recipe are left out where another method is given. A mistake is bad
    usage, exit code 2; FileNotFoundError and ValueError where a recipe cannot be read.
    """
    values = read_recipe(args.recipe) if getattr(args, "recipe", None) else {}
    try:
        options = given(args, PruneConfig, RunConfig)
    except ValueError as error:
        args.usage_error(flags_in(str(error)))
    if options.get("method", values.get("method")) != values.get("method"):
        values.pop("options", None)
    elif "options" in values and "options" in options:
        options["options"] = {**values["options"], **options["options"]}
    try:
        return configs_of({**values, **options})
    except ValueError as error:
        if ":" not in str(options.get("method", values.get("method", ""))):  # else it may be the method that is at fault
            args.usage_error(flags_in(str(error)))
        raise ValueError(flags_in(str(error))) from error


def flags_in(message: str, *configs: type) -> str:
    """A message about settings, with options of the command line in their place: `jobs=2` becomes `--jobs 2`, and
    `jobs=` becomes `--jobs`. configs: whose settings, a run's unless given."""
    known = {each.name: each for config in configs or (PruneConfig, RunConfig) for each in settings_of(config)}

    def option(match: re.Match[str]) -> str:
        name, value = match[1], match[2].strip("'")
        if name not in known:
            return match[0]
        flag = known[name].flag
        if value in ("True", "False"):
            return flag if value == "True" else flag.replace("--", "--no-", 1)
        if value.startswith("{"):  # what was given entry by entry
            return str(known[name].repeated)
        return f"{flag} {value}".rstrip()

    return re.sub(r"\b([a-z_]+)=('[^']*'|\{.*?\}|[\w.:]*)", option, message)
