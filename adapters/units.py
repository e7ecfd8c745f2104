"""What of a depth-2 module can leave together, and what that saves: channels, heads, key/value groups, a head of each group."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import nn

from gramian.adapters.structure import Part, Side, axis, operator
from gramian.adapters.structured_methods import Heads
from gramian.solvers import MaskProblem
from gramian.solvers._xp import device, namespace, to_numpy

__all__ = ["Menu", "magnitudes", "menu_of"]


@dataclass(frozen=True, eq=False)
class Menu:
    """The choices of one module. atoms: (a, k), the units of every atom; one score is given to each, larger = kept longer.

    A choice is what leaves at once. It is an atom (a hidden channel, a head, or a whole key/value group with its query
    heads), except in an `even` menu: there atoms are query heads, and a choice is one of each key/value group, because
    stock attention code needs groups of equal size. cost: the parameters that one choice takes with it.
    """

    part: Part
    atoms: np.ndarray
    even: bool
    cost: int

    @property
    def name(self) -> str:
        return self.part.name

    @property
    def choices(self) -> int:
        return self.part.members if self.even else len(self.atoms)

    @property
    def mixed(self) -> bool:
        """Whether a choice is several atoms, so that which they are follows from scores."""
        return self.choices < len(self.atoms)

    def grouped(self, preference: np.ndarray) -> np.ndarray:
        """The atoms of every choice (choices, groups), the preferred choice first; among equals the first atom is."""
        rows = -np.asarray(preference).reshape(-1, self.choices)
        order = np.argsort(rows, axis=1, kind="stable")
        return (order + self.choices * np.arange(len(rows))[:, None]).T

    def of_choices(self, scores: np.ndarray, preference: np.ndarray) -> np.ndarray:
        """A score for every choice, (choices,), the preferred first: the mean of its atoms' scores."""
        return np.asarray(scores, dtype=np.float64)[self.grouped(preference)].mean(axis=1)

    def kept(self, preference: np.ndarray, count: int) -> np.ndarray:
        """Units that stay, ascending, when the `count` preferred choices do."""
        return np.sort(self.atoms[self.grouped(preference)[:count]].reshape(-1))

    def problem(self, atoms: MaskProblem, preference: np.ndarray) -> MaskProblem:
        """The mask problem of the choices from that of the atoms. Where choices are several atoms, one variable stands for
        those of each, and the preferred choice comes first."""
        xp = namespace(atoms.matrix)
        cost = xp.full((self.choices,), float(self.cost), dtype=xp.float64, device=device(atoms.matrix))
        if not self.mixed:
            return MaskProblem(atoms.matrix, atoms.linear, atoms.constant, cost, trusted=True)
        place = np.zeros((self.choices, len(self.atoms)))
        np.put_along_axis(place, self.grouped(preference), 1.0, axis=1)
        sums = xp.asarray(place, device=device(atoms.matrix))
        return MaskProblem(sums @ atoms.matrix @ sums.T, sums @ atoms.linear, atoms.constant, cost, trusted=True)


def menu_of(model: nn.Module, part: Part, heads: Heads = "groups") -> Menu:
    """What can leave a module. heads, for attention with several query heads to a key/value group: `groups`, a choice is a
    whole group; `even`, it is one query head of each group, and keys and values stay. Of a single group query heads are the
    choices either way, as a module keeps something."""
    even = part.members > 1 and (heads == "even" or part.groups == 1)
    size = 1 if even else part.members
    atoms = np.arange(part.units).reshape(-1, size)
    some = atoms[:: part.members, 0] if even else atoms[0]
    cost = sum(len(places) * slice_size(model, name, side) for name, side, places in slabs_of(part, some, even))
    return Menu(part, atoms, even, cost)


def slabs_of(part: Part, units: np.ndarray, even: bool) -> list[tuple[str, Side, np.ndarray]]:
    """What leaves with `units`: of an even menu no keys and values do."""
    groups = np.empty(0, dtype=np.int64) if even else np.unique(units // part.members)
    return list(part.slabs(units, groups))


def slice_size(model: nn.Module, name: str, side: Side) -> int:
    """Parameters of one output (with its bias) or one input of an operator."""
    module = operator(model, name)
    return module.weight.numel() // module.weight.shape[axis(module, side)] + (side == "outputs" and module.bias is not None)


def magnitudes(model: nn.Module, menu: Menu, power: int) -> np.ndarray:
    """sum |w|^power over all weights that leave with an atom, producers' and consumer's, for every atom (a,)."""
    sums: dict[str, np.ndarray] = {}
    totals = np.zeros(len(menu.atoms))
    for place, units in enumerate(menu.atoms):
        for name, side, places in slabs_of(menu.part, units, menu.even):
            if name not in sums:
                module = operator(model, name)
                weight = module.weight.detach().double().abs() ** power
                sums[name] = to_numpy(weight.sum(dim=1 - axis(module, side)))
            totals[place] += sums[name][places].sum()
    return totals
