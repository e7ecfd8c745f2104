"""What a method is: how it decides on single weights or on whole units, and the settings that it has of its own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from gramian.adapters.methods.depth_methods import ChooseBlocks, GoesOn, Measured, Step
from gramian.adapters.methods.expert_methods import Choose
from gramian.adapters.methods.stream_methods import ChooseBasis
from gramian.adapters.methods.types import ModelContext, ScoreContext, UnitScores
from gramian.adapters.methods.vocabulary import Granularity
from gramian.solvers import NM, Pattern, Quadratic, Solution
from gramian.solvers.core.watch import RUNNING
from gramian.solvers.units.mixture import ExpertChoice, Mixture, Route
from gramian.solvers.units.stream_basis import StreamBasis
from gramian.spelling import meant

if TYPE_CHECKING:
    from torch import nn

    from gramian.adapters.methods.unit_sets import UnitSet

__all__ = ["Method"]


@dataclass(frozen=True)
class Method:
    """decide(problem, pattern, **options) -> Solution on single weights, or decide(module, **options) -> UnitScores on units.

    granularity: which of the two. Problems are float64; a module is a `ScoreContext`, and the largest scores are kept longest.
    prepare(context, **options) -> what is gathered from the dense model for every unit set, before any module is scored.
    settings: the method's own values of settings that are not given, such as `{"calibrate_on": "dense"}`, see `PruneConfig`.
    damps: whether damping enters what the method does. together(parts, peers, **options) -> list of
    Solution: `decide` for parts of the rows of single weights, which several processes can share; only
    peers.choose(scores) -> masks compares rows. factored: whether it returns a
    `FactoredSolution`, S + B A, of which only S is sparse. wrapped: whether weights are the product of a core, which has the
    zeros of the pattern, with factors that have none, so that they have no zeros themselves.

    Of units alone: inputs, whether scores need the moments of what enters the consumers of the dense model; modules:
    `channels` where the method prunes no attention unless `include` names it, `experts` where it removes whole experts of
    mixtures, decide(mixture, route, keep, exchanges, **options) -> ExpertChoice, `blocks` where it removes whole blocks,
    decide(measured, goes_on, **options) -> tuple of Step, `stream` where it narrows what all blocks read and write,
    decide(grams, kept, **options) -> StreamBasis; compensation: what makes up for removed units where the setting
    `compensate` is on, the consumer's other `weights`, solved for anew, or its `bias`, which takes the mean of what was
    removed; check(**options), which raises ValueError for options that prepare would refuse, and
    suits(model, unit_sets, **options) for models; gradients, of what `prepare` takes those of the
    whole model, of its `predictions` of the calibration tokens or labels, or of all its `outputs`; compares_heads,
    whether the method finds heads that are redundant, as many as its option `tau` says.
    """

    decide: Callable[..., Any]
    granularity: Granularity = "weights"
    prepare: Callable[..., Sequence[Any]] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    damps: bool = True
    together: Callable[..., list[Solution]] | None = None
    factored: bool = False
    wrapped: bool = False
    inputs: bool = True
    modules: Literal["all", "channels", "experts", "blocks", "stream"] = "all"
    compensation: Literal["weights", "bias"] = "weights"
    check: Callable[..., None] | None = None
    suits: Callable[..., None] | None = None
    gradients: Literal["predictions", "outputs"] | None = None
    compares_heads: bool = False

    @property
    def called(self) -> str:
        """The name of the function that has the options."""
        function = self.decide if parameters(self.decide, self.given) or self.prepare is None else self.prepare
        return getattr(function, "__name__", type(function).__name__)

    @property
    def given(self) -> int:
        """How many parameters of `decide` are no options: problem and pattern, or the module, or a mixture and what to keep, or
        what judges blocks and how many go."""
        if self.modules == "experts":
            return 4
        return 2 if self.granularity == "weights" or self.modules in ("blocks", "stream") else 1

    @property
    def defaults(self) -> dict[str, Any]:
        """The options and their defaults: the further parameters of `prepare` and `decide` that have one.

        How a solver is run (`throw`, `time_limit`, `callback`, `progress`) is no option, for it is no part of a method.
        """
        return {**parameters(self.prepare, 1), **parameters(self.decide, self.given)}

    @property
    def described(self) -> str:
        """The documentation of what the method does."""
        function = self.prepare if self.prepare and not parameters(self.decide, self.given) else self.decide
        return inspect.getdoc(function) or self.called

    def known(self, options: Mapping[str, Any]) -> None:
        """Raise ValueError for an option that the method does not have."""
        known = self.defaults
        for name in options:
            if name not in known:
                near = meant(name, known)
                raise ValueError(f"{self.called} has no option {name!r}{near}; it has {', '.join(known) or 'none'}")

    def tried(self, options: Mapping[str, Any], pattern: Pattern | None = None) -> Callable[..., Any]:
        """`decide` with its options fixed, after one call with a small problem.

        ValueError is raised for an option that the method does not have or that is out of range, and for an answer of another
        type, before long work begins.
        """
        self.known(options)
        if self.check is not None:
            self.check(**among(options, self.check, 0))
        if self.modules == "experts":
            return self.of_experts(options)
        if self.modules == "blocks":
            return self.of_blocks(options)
        if self.modules == "stream":
            return self.of_stream(options)
        return self.of_weights(options, pattern) if self.granularity == "weights" else self.of_units(options)

    def of_weights(self, options: Mapping[str, Any], pattern: Pattern | None) -> Callable[[Quadratic, Pattern], Solution]:
        """`tried` for single weights; without a pattern no call is made."""
        own = among(options, self.decide, self.given)

        def solve(problem: Quadratic, pattern: Pattern) -> Solution:
            return self.answered(self.decide(problem, pattern, **own))

        if pattern is not None:
            width = pattern.group if isinstance(pattern, NM) else 2
            solve(Quadratic(np.eye(width), np.ones((1, width))), pattern)
        return solve

    def of_parts(self, options: Mapping[str, Any]) -> Callable[[Sequence[Quadratic], Any], list[Solution]] | None:
        """`together` with its options fixed."""
        if (together := self.together) is None:
            return None
        own = among(options, together, 2)
        return lambda parts, peers: [self.answered(each) for each in together(parts, peers, **own)]

    def answered(self, solution: object) -> Solution:
        """A method's answer, with plain numbers for a report; ValueError where it is none."""
        if not isinstance(solution, Solution):
            raise ValueError(f"{self.called} returned {type(solution).__name__}, not a gramian.solvers.Solution")
        return replace(solution, detail={name: plain(self.called, name, value) for name, value in solution.detail.items()})

    def of_units(self, options: Mapping[str, Any]) -> Callable[[ScoreContext], UnitScores]:
        """`tried` for units; a method that gathers something is not called before it has."""
        own = among(options, self.decide, self.given)

        def score(module: ScoreContext) -> UnitScores:
            found = self.decide(module, **own)
            if not isinstance(found, UnitScores):
                raise ValueError(f"{self.called} returned {type(found).__name__}, not gramian.adapters.UnitScores")
            if found.scores is not None and np.shape(found.scores) != (module.count,):
                raise ValueError(
                    f"{self.called} returned scores of shape {np.shape(found.scores)} for {module.count} units: one for each"
                )
            if found.scores is not None and bool(np.any(np.isnan(found.scores))):
                raise ValueError(f"{self.called} returned scores that are NaN")
            return found

        if self.prepare is None:
            probe = Quadratic(np.eye(2), np.ones((1, 2)))
            try:
                score(ScoreContext(0, 2, 1.0, 0.5, lambda power: np.ones(2), probe, np.zeros(2), 2))
            except TypeError as error:  # a value of the wrong kind
                raise ValueError(f"options of {self.called}: {error}") from error
        return score

    def of_experts(self, options: Mapping[str, Any]) -> Choose:
        """`tried` for experts."""
        own = among(options, self.decide, self.given)

        def choose(mixture: Mixture, route: Route, keep: int, exchanges: bool) -> ExpertChoice:
            found = self.decide(mixture, route, keep, exchanges, **own)
            if not isinstance(found, ExpertChoice) or len(found.kept) != keep:
                raise ValueError(f"{self.called} returned {type(found).__name__}, not an ExpertChoice that keeps {keep}")
            return found

        two = Mixture.of_outputs(np.ones((1, 2, 1)), np.ones((1, 1)))
        choose(two, lambda kept: (kept[:1][None], np.ones((1, 1))), 1, False)
        return choose

    def of_blocks(self, options: Mapping[str, Any]) -> ChooseBlocks:
        """`tried` for whole blocks."""
        own = among(options, self.decide, self.given)

        def choose(measured: Measured, goes_on: GoesOn) -> tuple[Step, ...]:
            steps = tuple(self.decide(measured, goes_on, **own))
            if not all(isinstance(step, Step) for step in steps):
                raise ValueError(f"{self.called} returned something else than steps, one for every block that goes")
            return steps

        choose(lambda *_: Nothing(), lambda removed, block: not removed)
        return choose

    def of_stream(self, options: Mapping[str, Any]) -> ChooseBasis:
        """`tried` for the stream."""
        own = among(options, self.decide, self.given)

        def choose(grams: Sequence[Any], kept: int) -> StreamBasis:
            found = self.decide(grams, kept, **own)
            if not isinstance(found, StreamBasis) or tuple(found.basis.shape) != (len(grams[0]), kept):
                raise ValueError(f"{self.called} returned {type(found).__name__}, not a StreamBasis of {kept} directions")
            return found

        choose([np.eye(2)], 1)
        return choose

    def fit(self, model: nn.Module, unit_sets: Sequence[UnitSet], options: Mapping[str, Any]) -> None:
        """Raise ValueError for a model that the method does not suit, as far as is known without running it."""
        if self.suits is not None:
            self.suits(model, unit_sets, **among(options, self.suits, 2))

    def gather(self, context: ModelContext, options: Mapping[str, Any]) -> Sequence[Any]:
        """What is gathered for every unit set, None for each where the method gathers nothing.

        ValueError is raised for a model that the method does not suit."""
        if self.prepare is None:
            return [None] * len(context.unit_sets)
        return self.prepare(context, **among(options, self.prepare, 1))


class Nothing:
    """A judge of two blocks that do nothing."""

    blocks = (0, 1)

    def stands(self, removed: Sequence[int]) -> bool:
        """Any block may go."""
        return True

    def costs(self, removed: Sequence[int], candidates: Sequence[int]) -> Mapping[int, float]:
        """Nothing is lost."""
        return dict.fromkeys(candidates, 0.0)

    def influences(self) -> Mapping[int, float]:
        """Nothing is changed."""
        return dict.fromkeys(self.blocks, 0.0)


def parameters(function: Callable[..., Any] | None, skipped: int) -> dict[str, Any]:
    """The options of a function: those of its parameters after the first ones that have a default, and the defaults."""
    found = list(inspect.signature(function).parameters.values())[skipped:] if function else []
    return {each.name: each.default for each in found if each.default is not each.empty and each.name not in RUNNING}


def among(options: Mapping[str, Any], function: Callable[..., Any], skipped: int) -> dict[str, Any]:
    """Those of the options that a function has."""
    return {name: value for name, value in options.items() if name in parameters(function, skipped)}


def plain(called: str, name: str, value: Any) -> float:
    """A figure of a method's answer as a plain number for a report; ValueError is raised where it is no number."""
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{called} returned detail[{name!r}] of type {type(value).__name__}, not a number") from None
