"""PruneConfig: every setting of a run, once. The command line, checks, recipes and reports derive from its fields."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gramian.adapters.config.amounts import AMOUNT, Rules, rules_of
from gramian.adapters.config.budgets import BUDGET
from gramian.adapters.config.settings import (
    EXPRESSION,
    FLAG,
    NAME,
    NATURAL,
    OPTIONS,
    POSITIVE,
    RANGE,
    Setting,
    one_of,
    read_range,
    real,
    setting,
    settings_of,
)
from gramian.adapters.methods.method import Method
from gramian.adapters.methods.registry import resolve
from gramian.adapters.methods.vocabulary import ALLOCATIONS, HEADS
from gramian.solvers import NM, Pattern, TopK

__all__ = ["PruneConfig", "RunConfig"]

SEARCH_MINUTES = 30.0
REFITS = ("none", "support", "block")
HALF = 0.5  # of the way to the dense model generalises best, for an operator and for a block
DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class PruneConfig:
    """Settings that decide what is pruned, and how. None leaves a setting to the method; `completed` fills it in.

    ValueError for a value out of range, for a setting that belongs to the other kind of method, and for settings that
    contradict each other or would change nothing.
    """

    method: str = setting("fistapruner", NAME, "a name that `methods` lists, or MODULE:NAME for a function of your own")
    sparsity: float | str | Mapping[str, Any] | Pattern | None = setting(
        None, AMOUNT, "part of the weights to set to zero, from 0 to below 1; a pattern such as 2:4, which keeps 2 of every 4 "
        "consecutive weights of a row; or rules, amounts by regular expression of an operator's full name, of which the first "
        "that matches holds, and `*` for the rest", of="weights", usual=0.5, repeated="--sparsity-of",
    )  # fmt: skip
    per_row: bool | None = setting(
        None, FLAG, "meet a sparsity in every row of a weight, or over the weight as a whole", of="weights", usual=False
    )
    ratio: float | None = setting(
        None, real("a number above 0 and below 1", lambda value: 0 < value < 1, "R"),
        "part of the parameters inside the blocks to remove", of="units", usual=0.2,
    )  # fmt: skip
    budget: str | None = setting(
        None, BUDGET, "how large the model may be afterwards, in place of a ratio: params=4B in all, active=2B that a token "
        "meets, with the experts that it is routed to, or bytes=8GB of its weights as they are stored", of="units",
    )  # fmt: skip
    options: Mapping[str, Any] = setting(
        {}, OPTIONS, "options of the method itself, such as warm_start=wanda", repeated="--set"
    )
    calibrate_on: str | None = setting(
        None, one_of("dense", "pruned"), "what enters a block: activations of the dense model, where blocks are independent, "
        "or of the model pruned so far", usual="pruned",
    )  # fmt: skip
    target: str | None = setting(
        None, one_of("own", "block", "model"), "whose output an operator should match: that of its own input through the "
        "dense weights, of the dense block on the same block input, or of the dense model", of="weights", usual="own",
    )  # fmt: skip
    target_blend: float | None = setting(
        None, real("a number above 0 and at most 1", lambda value: 0 < value <= 1, "B"),
        "how far the target goes there from the operator's own output",
    )  # fmt: skip
    damping: float | str | None = setting(
        None, real("a number of at least 0, or auto", lambda value: 0 <= value < math.inf, "D", "auto"),
        "how little to trust the calibration text: a ridge on the change of the weights, relative to each channel's energy, "
        "or auto, chosen layer by layer on text set aside (not where units are removed)",
    )  # fmt: skip
    refit: str = setting(
        "none", one_of(*REFITS), "what is solved for at the end: nothing more; the best weights of every operator at the "
        "positions that the method kept (not where units are removed); or all weights that are left of a block, to the dense "
        "block's output",
    )  # fmt: skip
    rotate_heads: bool = setting(
        False, FLAG, "turn heads to a basis in which less is lost: the channels between values and the output projection, "
        "first; the model computes the same, and no parameter is added", of="weights",
    )  # fmt: skip
    permute_channels: bool = setting(
        False, FLAG, "reorder channels so that n:m keeps more: hidden channels, and those inside each head; the model computes "
        "the same", of="weights",
    )  # fmt: skip
    allocation: str | None = setting(
        None, one_of(*dict.fromkeys(name for names in ALLOCATIONS.values() for name in names)), "what divides the "
        "amount among modules: of weights the sparsity as it is given (uniform), or denser blocks where more "
        "weights are outliers (owl); of units one width for all modules of a kind, which stock classes build (equal), the "
        "method's scores ranked among modules of a type or among all (per_type, score), or the error that it causes (loss); of "
        "both a search by what the model's own output loses (search)",
    )  # fmt: skip
    search_minutes: float | None = setting(
        None, real("a number above 0", lambda value: value > 0, "M"),
        "minutes that allocation=search looks for a better one (30): solving every level takes time beside them",
    )  # fmt: skip
    round_to: int | None = setting(
        None, POSITIVE, "numbers of hidden channels are multiples of it, such as 8, 16, 64 or 256; the ratio is then met as "
        "nearly as they allow", of="units",
    )  # fmt: skip
    compensate: bool | None = setting(
        None,
        FLAG,
        "make up for removed units in what reads them: its weights or its bias",
        of="units",
        usual=False,
    )
    refit_producers: bool = setting(
        False,
        FLAG,
        "fit what is before removed units too: to the dense model's outputs, where that helps; of experts, let "
        "those that remain take over hidden channels of others",
        of="units",
    )
    swap_search: bool = setting(False, FLAG, "exchange kept units for removed ones while the loss falls", of="units")
    heads: str | None = setting(
        None, one_of(*HEADS), "what is removed of grouped-query attention: whole key/value groups, or equally many query heads "
        "of every group", of="units", usual=HEADS[0],
    )  # fmt: skip
    heads_by_similarity: bool = setting(
        False, FLAG, "remove the heads that look where a kept one looks: as many as there are by the method's tau; a "
        "ratio or budget is then met by hidden channels, and without either nothing else is removed", of="units",
    )  # fmt: skip
    include: str | None = setting(None, EXPRESSION, "only operators whose full name it matches somewhere")
    exclude: str | None = setting(None, EXPRESSION, "not the operators whose full name it matches somewhere")
    blocks: slice | str | None = setting(None, RANGE, "only these blocks, such as 4:30")
    jobs: int = setting(1, POSITIVE, "blocks that are pruned at once, with calibrate_on dense", of="weights")

    def __post_init__(self) -> None:
        if self.options is None:
            object.__setattr__(self, "options", {})
        check_ranges(self)
        method = self.recipe
        for each in settings_of(self):
            value = getattr(self, each.name)
            if each.of not in (None, method.granularity) and value not in (None, each.default):
                raise ValueError(self.misplaced(each, value, method))
        method.known(self.options)
        check_allocation(self, method)
        if isinstance(self.sparsity, TopK) and self.per_row is None:  # a pattern that says how it is met
            object.__setattr__(self, "per_row", self.sparsity.per_row)
        if method.granularity == "weights":
            check_weights_settings(self, method)
        else:
            check_units_settings(self, method)

    @property
    def recipe(self) -> Method:
        """The method."""
        return resolve(self.method)

    @property
    def amounts(self) -> Rules:
        """The sparsity as rules, first match first."""
        return rules_of(0.5 if self.sparsity is None else self.sparsity)

    @property
    def block_blend(self) -> float:
        """How far the target of a block that is refitted goes from its own output to the dense model's."""
        nothing_given = HALF if self.recipe.granularity == "units" or self.own("target") == "own" else 1.0
        return float(self.own("target_blend") or nothing_given)

    @property
    def span(self) -> slice:
        """The blocks to prune."""
        return read_range(self.blocks) if isinstance(self.blocks, str) else self.blocks or slice(None)

    def misplaced(self, each: Setting, value: Any, method: Method) -> str:
        """The message for a setting of the other kind of method."""
        units = method.granularity == "units"
        kind = "removes whole heads and channels" if units else "zeroes single weights"
        amount = f": give it {'ratio=' if units else 'sparsity='}" if each.name in ("sparsity", "ratio") else ""
        return f"{each.name}={value!r} does not go with {self.method!r}, which {kind}{amount}"

    def own(self, name: str) -> Any:
        """A setting, or what the method takes where it is not given."""
        each = next(each for each in settings_of(self) if each.name == name)
        value = getattr(self, name)
        if name == "ratio" and value is None and (self.budget is not None or self.heads_by_similarity):
            return None
        if name == "allocation" and value is None and self.heads_by_similarity:
            return "per_type"  # of the channels: heads go from each module as they are similar there
        if name == "allocation" and value is None:
            return self.recipe.settings.get(name, ALLOCATIONS[self.recipe.granularity][0])
        if name == "search_minutes" and value is None and self.own("allocation") == "search":
            return SEARCH_MINUTES
        if value is not None or each.of not in (None, self.recipe.granularity):
            return value
        return self.recipe.settings.get(name, each.usual)

    def completed(self) -> dict[str, Any]:
        """All settings that go with the method by name, its own where none is given, and all its options, as
        plain numbers, strings and lists."""
        method = self.recipe
        of = [each.name for each in settings_of(self) if each.of in (None, method.granularity)]
        written = {each.name: each.kind.write for each in settings_of(self)}
        values = {name: self.own(name) for name in of} | {"options": {**method.defaults, **self.options}}
        return {name: None if value is None else written[name](value) for name, value in values.items()}


@dataclass(frozen=True)
class RunConfig:
    """What a run of the command reads and how it is saved."""

    calibration: str = setting(
        "builtin", NAME, "builtin (English that ships with Python), self (sampled from the model), FILE.txt, FILE.safetensors "
        "(an integer tensor `tokens`, one window a row), FILE.jsonl (texts with labels), or "
        "hf:DATASET[:CONFIG][:SPLIT] (extra `datasets`); a line of FILE.jsonl has text and label, or source and target",
    )  # fmt: skip
    samples: int = setting(32, POSITIVE, "windows")
    length: int | None = setting(None, POSITIVE, "tokens in a window (512, or the model's context if that is less)")
    seed: int = setting(0, NATURAL, "which windows, where the source has more")
    recovery_calibration: str | None = setting(
        None, NAME, "a source of its own for what makes up for removed units: windows, named as for --calibration; units are "
        "still chosen on the calibration windows", of="units",
    )  # fmt: skip
    recovery_samples: int | None = setting(None, POSITIVE, "how many of them (as many as samples)", of="units")
    heldout: int | None = setting(
        None, NATURAL, "windows of the same source that are not calibrated on: errors are measured on them, and perplexity on "
        "the first 8 (an eighth of samples, at least 1; 0 for none)",
    )  # fmt: skip
    dtype: str = setting(
        "auto", one_of(*DTYPES), "dtype in which weights are stored, the checkpoint's own where auto; on a CPU the model runs "
        "in float32",
    )  # fmt: skip
    pad: bool = setting(
        False, FLAG, "save with zeros in place of removed units: where that is needed for widths that any program loads",
        of="units",
    )  # fmt: skip

    def __post_init__(self) -> None:
        check_ranges(self)
        if self.recovery_samples is not None and self.recovery_calibration is None:
            raise ValueError(f"recovery_samples={self.recovery_samples} needs a source: give recovery_calibration= too")

    @property
    def apart(self) -> int:
        """How many windows are held out."""
        return max(1, self.samples // 8) if self.heldout is None else self.heldout

    @property
    def recovery(self) -> tuple[str, int] | None:
        """The source of windows for recovery, and how many of them there are."""
        source = self.recovery_calibration
        return None if source is None else (source, self.recovery_samples or self.samples)


# -- checks ------------------------------------------------------------------------------------------------------------


def check_ranges(config: PruneConfig | RunConfig) -> None:
    """Raise ValueError for a value that its setting does not take; None is one where it is the default."""
    for each in settings_of(config):
        value = getattr(config, each.name)
        if not (value is None and each.default is None) and not each.kind.admits(value):
            raise ValueError(f"{each.name} must be {each.kind.described} but is {value!r}")


def check_allocation(config: PruneConfig, method: Method) -> None:
    """Raise ValueError for an allocation of the other kind of method, and for minutes of a search that is none."""
    known = ALLOCATIONS[method.granularity]
    if config.allocation not in (None, *known):
        what = "zeroes single weights" if method.granularity == "weights" else "removes whole units"
        raise ValueError(
            f"allocation={config.allocation!r} does not go with {config.method!r}, which {what}: take one of {', '.join(known)}"
        )
    searches = config.own("allocation") == "search"
    if config.search_minutes is not None and not searches:
        raise ValueError(f"search_minutes={config.search_minutes:g} needs allocation='search': nothing is searched for else")


def check_refit(config: PruneConfig) -> None:
    """Raise ValueError where blocks cannot be refitted as a whole."""
    if config.refit == "block" and config.own("calibrate_on") == "dense":
        raise ValueError(
            "refit='block' needs calibrate_on='pruned': a block is fitted on what the blocks pruned before it deliver"
        )


def check_weights_settings(config: PruneConfig, method: Method) -> None:
    """Raise ValueError where settings of a method of single weights contradict each other."""
    calibrate_on, target = (config.own(name) for name in ("calibrate_on", "target"))
    if config.jobs > 1 and calibrate_on == "pruned":
        raise ValueError(f"jobs={config.jobs} needs calibrate_on='dense': a block with pruned inputs waits for those before it")
    if config.target_blend not in (None, 1) and target == "own" and config.refit != "block":
        raise ValueError(
            f"target_blend={config.target_blend} does not go with target='own', where there is nothing to blend: leave one out"
        )
    if config.damping not in (None, 0) and not (method.damps or config.refit == "support"):
        raise ValueError(
            f"damping={config.damping!r} changes nothing, as {config.method!r} knows no inputs and solves for nothing: "
            "add refit='support'"
        )
    check_refit(config)
    per_row = config.own("per_row")
    if config.permute_channels and not any(isinstance(each, NM) for each in config.amounts.kinds(per_row)):
        raise ValueError(
            "permute_channels=True changes nothing where no sparsity is n:m, such as 2:4, which counts channels in groups: "
            "leave it out"
        )
    for pattern in config.amounts.kinds(per_row):
        method.tried(config.options, pattern)
        if config.own("allocation") != "uniform" and not isinstance(pattern, TopK):
            raise ValueError(
                f"allocation={config.own('allocation')!r} moves zeros from operator to operator, and the pattern {pattern} "
                "says how many each has: give a number as sparsity"
            )


def check_units_settings(config: PruneConfig, method: Method) -> None:
    """Raise ValueError where settings of a method of units contradict each other, as far as no model is needed."""
    if config.budget is not None and config.ratio is not None:
        raise ValueError(f"budget={config.budget!r} and ratio={config.ratio:g} both say how much is removed: give one of them")
    if config.damping == "auto":
        raise ValueError(f"damping='auto' does not go with {config.method!r}, which removes whole heads and channels: "
                         "give a number")  # fmt: skip
    if config.refit == "support":
        raise ValueError(
            f"refit='support' does not go with {config.method!r}, which removes whole heads, channels, experts or blocks: see "
            "compensate=True"
        )
    if config.refit == "block" and method.modules in ("experts", "blocks"):
        raise ValueError(
            f"refit='block' does not go with {config.method!r}, which removes whole {method.modules}: leave it out"
        )
    check_refit(config)
    method.tried(config.options)
    check_similarity(config, method)
    if method.modules == "experts":
        check_experts_settings(config)
        return
    if method.modules == "blocks":
        check_blocks_settings(config)
        return
    solves = config.own("compensate") and method.compensation == "weights"
    if config.own("allocation") == "search" and config.own("compensate") and not solves:
        raise ValueError(
            f"allocation='search' does not go with {config.method!r}, which makes up for removed units in a bias that its "
            "levels have not: add compensate=False, or take 'numerical'"
        )
    if config.swap_search and not solves:
        raise ValueError(
            "swap_search=True needs the other weights to be solved for: compensate=True, and a method that does it in weights"
        )
    if config.refit_producers and config.own("calibrate_on") == "dense":
        raise ValueError(
            "refit_producers=True needs calibrate_on='pruned': with dense inputs nothing drifts that a refit could correct"
        )
    if config.refit_producers and config.target_blend not in (None, 1):
        raise ValueError(
            f"refit_producers=True needs target_blend=1 but it is {config.target_blend}: two producers compare on one target"
        )
    if config.damping is not None and not (solves or method.damps):
        raise ValueError(
            f"damping={config.damping} changes nothing, as nothing is solved for that it could damp: leave it out, or "
            "compensate in the weights"
        )


def check_similarity(config: PruneConfig, method: Method) -> None:
    """Raise ValueError where heads by similarity go with nothing that the other settings ask for."""
    if not config.heads_by_similarity:
        return
    if not method.compares_heads:
        raise ValueError(
            f"heads_by_similarity=True does not go with {config.method!r}, which compares no heads: take 'greedy-output'"
        )
    if not {**method.defaults, **config.options}["tau"]:
        raise ValueError(
            f"heads_by_similarity=True needs a distance below which heads are similar, but tau is {config.options['tau']!r}: "
            "give one above 0"
        )
    if config.own("heads") != "groups":
        raise ValueError(
            "heads_by_similarity=True removes the heads that are similar, and heads='per_kv_group' as many of every group: "
            "take 'groups'"
        )
    if config.allocation in ("equal", "search"):
        gives = "as many heads" if config.allocation == "equal" else "the heads that are best for the output"
        raise ValueError(
            f"allocation={config.allocation!r} gives every module {gives}, and heads_by_similarity=True each as many as "
            "differ: leave one of them out"
        )
    if config.swap_search:
        raise ValueError(
            "swap_search=True would exchange the heads that heads_by_similarity=True chooses: leave one of them out"
        )


def check_experts_settings(config: PruneConfig) -> None:
    """Raise ValueError for settings of heads and channels, which change nothing where experts are removed."""
    for name in ("allocation", "round_to", "heads", "target_blend"):
        if (value := getattr(config, name)) not in (None, False, "equal"):
            raise ValueError(f"{name}={value!r} does not go with {config.method!r}, which removes whole experts: leave it out")
    if config.damping is not None and not config.own("compensate"):
        raise ValueError(f"damping={config.damping} changes nothing where nothing is fitted: leave it out, or compensate")
    if config.refit_producers and not config.own("compensate"):
        raise ValueError("refit_producers=True changes nothing where nothing is fitted: leave it out, or compensate")
    if config.swap_search and config.options.get("score", "output") != "output":
        raise ValueError(f"swap_search=True needs experts to be chosen by score='output', not {config.options['score']!r}")


def check_blocks_settings(config: PruneConfig) -> None:
    """Raise ValueError for settings of heads and channels, which change nothing where whole blocks are removed."""
    amounts = ("ratio", "budget", "compensate")
    others = [each for each in settings_of(config) if each.of == "units" and each.name not in amounts]
    for name, default in [*((each.name, each.default) for each in others), ("target_blend", None), ("allocation", None)]:
        if (value := getattr(config, name)) not in (None, default):
            raise ValueError(f"{name}={value!r} does not go with {config.method!r}, which removes whole blocks: leave it out")
    if config.calibrate_on == "dense":
        raise ValueError(
            f"calibrate_on='dense' does not go with {config.method!r}: what remains is given what is left of the blocks before"
        )
    if config.damping is not None and not config.own("compensate"):
        raise ValueError(f"damping={config.damping} changes nothing where nothing is fitted: leave it out, or compensate")
