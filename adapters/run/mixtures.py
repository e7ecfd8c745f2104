"""How often the tokens of every batch count, where calibration text is of several domains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gramian.adapters.data.tokens import Tokens
from gramian.adapters.pages.domains import figure_names
from gramian.adapters.run.forward import domains_of_batches
from gramian.solvers import Moments

__all__ = ["Mixture", "mixture_of"]

KINDS = 3  # parts of batches: fitted, choosing the damping, held out


@dataclass(frozen=True)
class Mixture:
    """names: of the domains. places: the domain of every batch, by number. factors: how often a token of each domain counts in
    calibration; heldout: and on held-out windows, where that is 0 for a domain that weighs nothing."""

    names: tuple[str, ...]
    places: tuple[int, ...]
    factors: tuple[float, ...]
    heldout: tuple[float, ...] = ()

    def factor(self, batch: int) -> float:
        """How often a token of a batch that calibrates counts."""
        return self.factors[self.places[batch]]

    def kind(self, part: int, batch: int) -> int:
        """The number under which moments of a batch in a part are kept, of which each domain has its own."""
        return KINDS * self.places[batch] + part

    def mixed(self, sums: Mapping[int, Moments], last: int) -> dict[int, Moments]:
        """Moments by part, sum_d f_d M_d over the domains. last: the part that is held out."""
        found: dict[int, Moments] = {}
        for kind in sorted(sums):
            domain, part = divmod(kind, KINDS)
            factor = (self.heldout if part == last else self.factors)[domain]
            if factor:
                each = sums[kind] if factor == 1 else sums[kind].scaled(factor)
                found[part] = found[part].merged(each) if part in found else each
        return found

    def apart(self, sums: Mapping[int, Moments], last: int) -> dict[str, Moments]:
        """Moments of every domain alone, by what an error on them is called: all that calibrate it, and those held out."""
        found: dict[str, Moments] = {}
        for domain, name in enumerate(self.names):
            calibration, heldout = figure_names(name)
            for part in range(last):
                if (each := sums.get(KINDS * domain + part)) is not None:
                    found[calibration] = found[calibration].merged(each) if calibration in found else each
            if (each := sums.get(KINDS * domain + last)) is not None:
                found[heldout] = each
        return found


def mixture_of(tokens: Tokens, heldout: Tokens | None = None) -> Mixture | None:
    """What the batches of some windows, and then of those held out, are mixed of; None without domains."""
    if tokens.domains is None:
        return None
    names, places, factors = tokens.domains.names, domains_of_batches(tokens), tokens.domains.factors
    if heldout is None or heldout.domains is None:
        return Mixture(names, tuple(places), factors)
    return Mixture(names, (*places, *domains_of_batches(heldout)), factors, heldout.domains.factors)
