"""How sparse every operator becomes, at the total that the settings say: denser where outliers are, or as a search finds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from gramian.adapters.models.block_lists import full_name
from gramian.adapters.models.discovery import stages_of
from gramian.adapters.models.loading import storage_dtype
from gramian.adapters.passes.angles import turning_blocks
from gramian.adapters.passes.dense_operators import DenseOperators
from gramian.adapters.passes.levels import OperatorLevels, WeightLevels
from gramian.adapters.passes.magnitudes import Magnitudes, magnitudes, zeros_below
from gramian.adapters.passes.outliers import BlockOutliers, outliers, saliencies
from gramian.adapters.passes.planned import home_of, nothing
from gramian.adapters.passes.searched import Search, Searched, found_by_search, level_files
from gramian.adapters.passes.spectra import exponents, spectrum
from gramian.adapters.run.blocks import Blocks
from gramian.adapters.run.journal import Journal
from gramian.adapters.run.level_files import LevelFiles
from gramian.adapters.run.mixtures import Mixture
from gramian.adapters.run.walk import walk
from gramian.adapters.targets import AllZero, shape_of
from gramian.solvers import Pattern, TopK
from gramian.solvers.levels.heavy_tails import tail_sparsities
from gramian.solvers.levels.outliers import outlier_sparsities
from gramian.solvers.levels.turning_blocks import turning_sparsities

__all__ = [
    "counting",
    "levelling",
    "measuring",
    "sizing",
    "sparsities_by_angles",
    "sparsities_by_magnitude",
    "sparsities_by_outliers",
    "sparsities_by_search",
    "sparsities_by_spectra",
]

Patterns = Mapping[str, Pattern]


def levelling(
    model: Any,
    paths: tuple[str, ...],
    patterns: Patterns,
    files: LevelFiles,
    fitted: int,
    advance: Callable[[], object] = nothing,
) -> DenseOperators:
    """The pass that solves levels. fitted: how many batches there are."""
    solve = WeightLevels(files, patterns, storage_dtype(model))
    return DenseOperators(
        paths, stages_with(model, paths, patterns), solve, fitted, home_of(model), advance, (OperatorLevels,), "levels"
    )


def counting(
    model: Any,
    paths: tuple[str, ...],
    patterns: Patterns,
    fitted: int,
    advance: Callable[[], object] = nothing,
    mixture: Mixture | None = None,
) -> DenseOperators:
    """The pass that counts outliers."""
    return DenseOperators(
        paths, stages_with(model, paths, patterns), saliencies, fitted, home_of(model), advance, (BlockOutliers,), "outliers",
        outliers, mixture,
    )  # fmt: skip


def measuring(model: Any, paths: tuple[str, ...], patterns: Patterns) -> DenseOperators:
    """The pass that measures the tails of spectra."""
    return DenseOperators(
        paths, stages_with(model, paths, patterns), spectrum, 0, home_of(model), nothing, (BlockOutliers,), "spectra", exponents
    )


def sizing(model: Any, paths: tuple[str, ...], patterns: Patterns) -> DenseOperators:
    """The pass that counts weights by their size."""
    return DenseOperators(
        paths, stages_with(model, paths, patterns), magnitudes, 0, home_of(model), nothing, (Magnitudes,), "magnitudes"
    )


def stages_with(model: Any, paths: tuple[str, ...], patterns: Patterns) -> tuple[tuple[tuple[str, ...], ...], ...]:
    """The stages of every block by full name, of operators that are to be pruned alone."""
    named = (
        [[full_name(path, operator) for operator in stage] for stage in stages] for path, stages in zip(paths, stages_of(model))
    )
    chosen = ([tuple(name for name in stage if name in patterns) for stage in stages] for stages in named)
    return tuple(tuple(stage for stage in stages if stage) for stages in chosen)


def sparsities_by_magnitude(
    blocks: Blocks, patterns: Patterns, batches: Sequence[Any], journal: Journal | None
) -> dict[str, Pattern]:
    """Global magnitude pruning: every operator as sparse as the smallest weights of the whole model leave it."""
    walked = walk(sizing(blocks.model, blocks.paths, patterns), blocks, batches, journal=journal)
    wanted = sum(zeros_given(blocks.model, patterns).values())
    return patterns_with(blocks.model, patterns, zeros_below([row for block in walked for row in block], wanted), wanted)


def sparsities_by_spectra(
    blocks: Blocks, patterns: Patterns, batches: Sequence[Any], journal: Journal | None
) -> dict[str, Pattern]:
    """AlphaPruning: every operator of a block as much sparser or denser as the block is by `tail_sparsities`."""
    return sparsities_by(measuring(blocks.model, blocks.paths, patterns), tail_sparsities, blocks, patterns, batches, journal)


def sparsities_by_outliers(
    blocks: Blocks, patterns: Patterns, batches: Sequence[Any], journal: Journal | None, mixture: Mixture | None = None
) -> dict[str, Pattern]:
    """OWL: every operator of a block as much sparser or denser as the block is by `outlier_sparsities`."""
    each = counting(blocks.model, blocks.paths, patterns, len(batches), mixture=mixture)
    return sparsities_by(each, outlier_sparsities, blocks, patterns, batches, journal)


def sparsities_by_angles(
    blocks: Blocks,
    patterns: Patterns,
    batches: Sequence[Any],
    mixture: Mixture | None = None,
    advance: Callable[[], object] = nothing,
) -> dict[str, Pattern]:
    """CFSP: operators keep parts, of what they would keep, in proportion to how far their blocks turn the stream."""
    model, home = blocks.model, {name: place for place in blocks.paths for name in patterns if name.startswith(f"{place}.")}
    weights = turning_blocks(blocks, set(home.values()), batches, mixture, advance)
    given, sizes = zeros_given(model, patterns), {name: math.prod(shape_of(model, name)) for name in patterns}
    plain = [given[name] / sizes[name] for name in patterns]
    found = turning_sparsities([weights[home[name]] for name in patterns], list(sizes.values()), plain)
    zeros = {name: round(sparsity * sizes[name]) for name, sparsity in zip(patterns, found)}
    return patterns_with(model, patterns, zeros, sum(given.values()))


def sparsities_by(
    each: DenseOperators,
    rule: Callable[[Sequence[float], Sequence[int], Sequence[float]], list[float]],
    blocks: Blocks,
    patterns: Patterns,
    batches: Sequence[Any],
    journal: Journal | None,
) -> dict[str, Pattern]:
    """Every operator of a block as much sparser or denser as the block is by a rule from what a pass has measured of blocks."""
    model = blocks.model
    rows: list[BlockOutliers] = [row for block in walk(each, blocks, batches, journal=journal) for row in block]
    sizes = {name: math.prod(shape_of(model, name)) for name in patterns}
    given = zeros_given(model, patterns)
    plain = [sum(given[name] for name in row.names) / row.size for row in rows]
    found = rule([row.ratio for row in rows], [row.size for row in rows], plain)
    zeros = {
        name: round(min(sizes[name], max(0.0, given[name] + (one - other) * sizes[name])))
        for row, one, other in zip(rows, found, plain)
        for name in row.names
    }
    return patterns_with(model, patterns, zeros, sum(given.values()))


def sparsities_by_search(search: Search, patterns: Patterns) -> tuple[dict[str, Pattern], Searched]:
    """The patterns of the levels that a search finds, and what it found. Operators of a module, and of a block, may all go."""
    model, paths = search.blocks.model, search.blocks.paths
    given = zeros_given(model, patterns)
    shares = {name: zeros / math.prod(shape_of(model, name)) for name, zeros in given.items()}
    with level_files(search.journal) as files:
        levels = partial(levelling, model, paths, patterns, files)
        found = found_by_search(search, files, levels, len(patterns), sum(given.values()), shares, partial(together, paths))
    zeros = {row.name: row.amounts[level] for row, level in zip(found.rows, found.state.best.choice)}
    return patterns_with(model, patterns, zeros, sum(given.values())), found


def together(paths: Sequence[str], names: Sequence[str]) -> list[tuple[int, ...]]:
    """Places of the operators that lie in one module, such as attention, and of those in one block, where they are several."""
    modules = dict.fromkeys(name.rpartition(".")[0] for name in names)
    found = (tuple(place for place, name in enumerate(names) if name.startswith(f"{path}.")) for path in [*modules, *paths])
    return [places for places in dict.fromkeys(found) if 1 < len(places) < len(names)]


def zeros_given(model: Any, patterns: Patterns) -> dict[str, int]:
    """How many zeros every operator has by the sparsity that is given."""
    found = {}
    for name, pattern in patterns.items():
        assert isinstance(pattern, TopK)
        rows, columns = shape_of(model, name)
        found[name] = rows * pattern.zeros(columns) if pattern.per_row else pattern.zeros(rows * columns)
    return found


def patterns_with(model: Any, patterns: Patterns, zeros: Mapping[str, int], wanted: int) -> dict[str, Pattern]:
    """The patterns of so many zeros, of which the largest operators have as many more or fewer as it takes to have `wanted` in
    all: to a row's worth, where a sparsity is met row by row."""
    left = wanted - sum(zeros.values())
    found: dict[str, Pattern] = {}
    for name in sorted(zeros, key=lambda name: -math.prod(shape_of(model, name))):
        pattern, (rows, columns) = patterns[name], shape_of(model, name)
        assert isinstance(pattern, TopK)
        unit, size, count = rows if pattern.per_row else 1, rows * columns, zeros[name]
        if 0 < count < size:  # what is dense or gone was chosen to be
            changed = min(size - unit, max(unit, unit * round((count + left) / unit)))
            left, count = left - (changed - count), changed
        found[name] = AllZero() if count == size else TopK(count / size, pattern.per_row)
    return {name: found[name] for name in patterns}
