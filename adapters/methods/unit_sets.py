"""What of a depth-2 module can leave together, and what that saves: channels, heads, key/value groups, a head of each group."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from torch import nn

from gramian.adapters.methods.choices import Heads
from gramian.adapters.models.unit_groups import Part, Side, axis, operator
from gramian.solvers import MaskProblem
from gramian.solvers.backend._xp import device, namespace, to_numpy

__all__ = ["Menu", "atom_sums", "magnitudes", "menu_of", "owners"]


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

    def sums(name: str, side: Side) -> np.ndarray:
        module = operator(model, name)
        weight = module.weight.detach().double().abs() ** power
        return to_numpy(weight.sum(dim=1 - axis(module, side)))

    return atom_sums(menu, sums)


def atom_sums(menu: Menu, values: Callable[[str, Side], np.ndarray]) -> np.ndarray:
    """Sums over what leaves with each atom, (a,), of values(name, side): one number for every output or every input of an
    operator."""
    totals = np.zeros(len(menu.atoms))
    for name, side, atoms in owners(menu):
        leaving = atoms >= 0
        totals += np.bincount(atoms[leaving], weights=values(name, side)[leaving], minlength=len(totals))
    return totals


def owners(menu: Menu) -> Iterator[tuple[str, Side, np.ndarray]]:
    """Full name and side of every operator of a module, and the atom that each of its outputs or inputs leaves with, -1 for
    none: of an even menu keys and values stay."""
    part = menu.part
    of_units = np.repeat(np.arange(len(menu.atoms)), menu.atoms.shape[1])
    of_groups = np.full(part.groups, -1) if menu.even else of_units[:: part.members]
    for path, levels in part.structure.producers:
        sections = [np.repeat(of_units if level == "unit" else of_groups, part.size) for level in levels]
        yield f"{part.block}.{path}", "outputs", np.concatenate(sections)
    yield part.name, "inputs", np.repeat(of_units, part.size)
