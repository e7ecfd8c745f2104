"""Settings of a run that contradict each other, or would change nothing."""

from __future__ import annotations

from gramian.adapters.config.prune_settings import PruneSettings
from gramian.adapters.config.settings import check_ranges, settings_of
from gramian.adapters.methods.method import Method
from gramian.adapters.methods.vocabulary import ALLOCATIONS
from gramian.solvers import NM, TopK

__all__ = ["check_settings"]


def check_settings(config: PruneSettings) -> None:
    """Raise ValueError for the first of its settings that is out of range, belongs to the other kind of method, contradicts
    another one, or would change nothing."""
    check_ranges(config)
    method = config.recipe
    check_kind(config, method)
    method.known(config.options)
    check_allocation(config, method)
    if method.granularity == "weights":
        check_weights_settings(config, method)
    else:
        check_units_settings(config, method)


def check_kind(config: PruneSettings, method: Method) -> None:
    """Raise ValueError for a setting of the other kind of method."""
    units = method.granularity == "units"
    for each in settings_of(config):
        value = getattr(config, each.name)
        if each.of not in (None, method.granularity) and value not in (None, each.default):
            amount = f": give it {'ratio=' if units else 'sparsity='}" if each.name in ("sparsity", "ratio") else ""
            raise ValueError(f"{each.name}={value!r} does not go with {config.method!r}, which {work_of(method)}{amount}")


def work_of(method: Method) -> str:
    """What a method does, to complete a message."""
    if method.granularity == "weights":
        return "zeroes single weights"
    if method.modules == "stream":
        return "narrows the stream of the model"
    return f"removes whole {method.modules if method.modules in ('experts', 'blocks') else 'heads and channels'}"


def check_allocation(config: PruneSettings, method: Method) -> None:
    """Raise ValueError for an allocation of the other kind of method, and for minutes of a search that is none."""
    known = ALLOCATIONS[method.granularity]
    if config.allocation not in (None, *known):
        instead = f"take one of {', '.join(known)}" if method.modules in ("all", "channels") else "leave it out"
        raise ValueError(
            f"allocation={config.allocation!r} does not go with {config.method!r}, which {work_of(method)}: {instead}"
        )
    searches = config.own("allocation") == "search"
    if config.search_minutes is not None and not searches:
        raise ValueError(f"search_minutes={config.search_minutes:g} needs allocation='search': nothing is searched for else")


def check_refit(config: PruneSettings) -> None:
    """Raise ValueError where blocks cannot be refitted as a whole."""
    if config.refit == "block" and config.own("calibrate_on") == "dense":
        raise ValueError(
            "refit='block' needs calibrate_on='pruned': a block is fitted on what the blocks pruned before it deliver"
        )


def check_weights_settings(config: PruneSettings, method: Method) -> None:
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
    if config.refit != "none" and method.wrapped:
        raise ValueError(
            f"refit={config.refit!r} does not go with {config.method!r}: weights are the product of a sparse core with other "
            "factors, which no refit would hold"
        )
    check_refit(config)
    if method.factored and (config.refit != "none" or config.own("allocation") == "search"):
        wrong = f"refit={config.refit!r}" if config.refit != "none" else "allocation='search'"
        raise ValueError(
            f"{wrong} does not go with {config.method!r}, whose weights are a product beside sparse ones: leave it out"
        )
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


def check_units_settings(config: PruneSettings, method: Method) -> None:
    """Raise ValueError where settings of a method of units contradict each other, as far as no model is needed."""
    if config.budget is not None and config.ratio is not None:
        raise ValueError(f"budget={config.budget!r} and ratio={config.ratio:g} both say how much is removed: give one of them")
    if method.modules == "stream":
        check_stream_settings(config)
    if config.damping == "auto":
        raise ValueError(f"damping='auto' does not go with {config.method!r}, which {work_of(method)}: give a number")
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
    if method.modules == "stream":
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


def check_similarity(config: PruneSettings, method: Method) -> None:
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


def check_experts_settings(config: PruneSettings) -> None:
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


def check_blocks_settings(config: PruneSettings) -> None:
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


def check_stream_settings(config: PruneSettings) -> None:
    """Raise ValueError for settings of units, blocks and fits, which change nothing where the stream is narrowed."""
    amounts = ("ratio", "budget", "round_to")
    others = [each.name for each in settings_of(config) if each.of == "units" and each.name not in amounts]
    for name in [*others, "target_blend", "allocation", "damping", "calibrate_on", "refit", "include", "exclude", "blocks"]:
        if (value := getattr(config, name)) not in (None, False, "none"):
            raise ValueError(
                f"{name}={value!r} does not go with {config.method!r}, which narrows the stream of the whole model and fits "
                "nothing: leave it out"
            )
