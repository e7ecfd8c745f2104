"""PruneConfig: the settings of a run, checked. The command line, recipes and reports derive from its fields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gramian.adapters.config.contradictions import check_settings
from gramian.adapters.config.prune_settings import PruneSettings
from gramian.adapters.config.settings import settings_of
from gramian.solvers import TopK

__all__ = ["PruneConfig"]


@dataclass(frozen=True)
class PruneConfig(PruneSettings):
    """Settings that decide what is pruned, and how. None leaves a setting to the method; `completed` fills it in.

    ValueError for a value out of range, for a setting that belongs to the other kind of method, and for settings that
    contradict each other or would change nothing.
    """

    def __post_init__(self) -> None:
        if self.options is None:
            object.__setattr__(self, "options", {})
        if isinstance(self.sparsity, TopK) and self.per_row is None:  # a pattern that says how it is met
            object.__setattr__(self, "per_row", self.sparsity.per_row)
        check_settings(self)

    def completed(self) -> dict[str, Any]:
        """All settings that go with the method by name, its own where none is given, and all its options, as
        plain numbers, strings and lists."""
        method = self.recipe
        of = [each.name for each in settings_of(self) if each.of in (None, method.granularity)]
        written = {each.name: each.kind.write for each in settings_of(self)}
        values = {name: self.own(name) for name in of} | {"options": {**method.defaults, **self.options}}
        return {name: None if value is None else written[name](value) for name, value in values.items()}
