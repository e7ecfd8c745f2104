"""Where what two versions left differs, place by place."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from golden.renamed import Renamed

__all__ = ["ABSENT", "Difference", "differences", "flat", "translated"]

VOLATILE = (r"/(seconds|versions)(/|$)",)
ABSENT = "nothing"
NOT_RUN = {"error": "the case was not run"}


@dataclass(frozen=True)
class Difference:
    """place: a path such as `/report/operators/0 model.layers.0.mlp.up_proj/residual`, in the words of the new version.
    before, after: the values there as they are printed, `nothing` where a version has none."""

    case: str
    place: str
    before: str
    after: str


def differences(
    before: Mapping[str, Any], after: Mapping[str, Any], renamed: Renamed, cases: Iterable[str] = ()
) -> list[Difference]:
    """before, after: what cases left on the baseline and on the working tree, by the cases' names. cases: those that have to
    be there beside what is. A case that raised is a difference even where both raised alike."""
    found = []
    for case in dict.fromkeys([*before, *after, *cases]):
        old = translated(flat(before.get(case, NOT_RUN)), renamed)
        new = without(flat(after.get(case, NOT_RUN)), (*VOLATILE, *renamed.added))
        for place in dict.fromkeys([*old, *new]):
            one, two = (repr(side[place]) if place in side else ABSENT for side in (old, new))
            if one != two or place == "/error":
                found.append(Difference(case, place, one, two))
    return found


def flat(value: Any, place: str = "") -> dict[str, Any]:
    """Leaves of nested mappings and lists by their places; an entry of a list that has a name says it. Of an empty one, that
    it is empty."""
    if not isinstance(value, Mapping | list):
        return {place: value}
    if not value:
        return {f"{place}/": f"empty {type(value).__name__}"}
    named = value if isinstance(value, Mapping) else {entry_name(*entry): entry[1] for entry in enumerate(value)}
    return {deeper: leaf for name, each in named.items() for deeper, leaf in flat(each, f"{place}/{name}").items()}


def entry_name(index: int, entry: Any) -> str:
    return f"{index} {entry['name']}" if isinstance(entry, Mapping) and "name" in entry else str(index)


def without(leaves: Mapping[str, Any], expressions: Iterable[str]) -> dict[str, Any]:
    """Leaves but for those at places where an expression matches."""
    return {place: leaf for place, leaf in leaves.items() if not any(re.search(each, place) for each in expressions)}


def translated(leaves: Mapping[str, Any], renamed: Renamed) -> dict[str, Any]:
    """Leaves of the baseline as the working tree calls them."""
    found = {}
    for place, leaf in without(leaves, (*VOLATILE, *renamed.dropped)).items():
        leaf = renamed.choices.get(place.rpartition("/")[2], {}).get(leaf, leaf)
        place = "/".join(renamed.settings.get(name, name) for name in place.split("/"))
        for old, new in renamed.paths.items():
            place = re.sub(old, new, place)
        for expression, words in renamed.words.items():
            if re.search(expression, place):
                leaf = words.get(leaf, leaf)
        found[place] = leaf
    return found
