"""The search for an instance on which a check fails. Both claims and laws are checked by it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy

__all__ = ["falsify"]


def falsify(instances: SearchStrategy[Any], check: Callable[[Any], None], examples: int, *, shrink: bool = True) -> int:
    """Call `check` on `examples` instances, the same ones every time, and return on how many. Raises what `check` raises.

    With `shrink` a failing instance is made smaller for as long as `check` fails on it, and the smallest comes last.
    """
    count = 0

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        report_multiple_bugs=False,
        print_blob=False,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate] + ([Phase.shrink] if shrink else []),
    )
    @given(instances)
    def every(instance: Any) -> None:
        nonlocal count
        count += 1
        check(instance)

    every()
    return count
