"""Windows of several domains as one: each given with its weight, in Python by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from gramian.adapters.data.domains import Domains, interleaved, normalised
from gramian.adapters.data.tokens import Tokens, TokensLike, windows_of

__all__ = ["given_windows", "mixed", "paired"]


def given_windows(given: TokensLike, what: str = "windows") -> Tokens:
    """Windows in any form that `windows_of` takes, or by domain: a mapping from names to windows, or to pairs of windows and
    weights. Domains without a weight count alike."""
    if isinstance(given, Mapping) and given and not {"input_ids", "labels", "label"}.intersection(given):
        weighed = {str(name): each if is_weighed(each) else (each, None) for name, each in given.items()}
        if any(is_windows(windows) for windows, _ in weighed.values()):
            missing = [weight is None for _, weight in weighed.values()]
            if any(missing) and not all(missing):
                names = [name for name, none in zip(weighed, missing) if none]
                raise ValueError(f"{what} have weights in some domains and none in {names[0]!r}: give all of them one, or none")
            found = {name: windows_of(windows, f"{what} of {name}") for name, (windows, _) in weighed.items()}
            return mixed(found, {name: 1.0 if weight is None else weight for name, (_, weight) in weighed.items()}, what)
    return windows_of(given, what)


def is_weighed(given: Any) -> bool:
    """Whether something is a pair of windows and their weight."""
    return isinstance(given, tuple) and len(given) == 2 and isinstance(given[1], int | float) and not isinstance(given[1], bool)


def is_windows(given: Any) -> bool:
    """Whether something looks like windows, and not like one of the fields of a batch, which are named otherwise."""
    return isinstance(given, Tokens | Mapping | list | tuple) or getattr(given, "ndim", 0) == 2


def mixed(found: Mapping[str, Tokens], weights: Mapping[str, float], what: str = "windows") -> Tokens:
    """The windows of several domains in turns. Those of domains that weigh nothing are left out, so that they change nothing.

    ValueError: labels, windows of several lengths, weights that are none."""
    shares = normalised(weights)
    for name, each in found.items():
        if each.labels is not None or each.domains is not None:
            raise ValueError(
                f"{what} of {name} are texts with labels, or of domains themselves, expected windows of plain text"
            )
    lengths = {name: each.windows.shape[1:] for name, each in found.items() if shares[name] > 0}
    (first, length), *others = lengths.items()
    for name, other in others:
        if other != length:
            raise ValueError(
                f"{what} of {first} have {length[0]} tokens and those of {name} {other[0]}: cut all texts into one length"
            )
    names = tuple(found)
    kept = [found[name].windows if shares[name] > 0 else found[name].windows[:0] for name in names]
    order = interleaved([[(number, place) for place in range(len(each))] for number, each in enumerate(kept)])
    device = found[first].windows.device
    rows = torch.stack([kept[number][place].to(device) for number, place in order])
    seeds = {each.seed for each in found.values()}
    source = " + ".join(f"{shares[name]:.3g} {each.source}" for name, each in found.items())
    domains = Domains(names, tuple(shares.values()), tuple(number for number, _ in order))
    return Tokens(rows, source, seeds.pop() if len(seeds) == 1 else None, domains=domains)


def paired(tokens: Tokens, heldout: Tokens | None, recovery: Tokens | None) -> Tokens | None:
    """Held-out windows whose domains have the weights of those that calibrate. ValueError unless both name the same domains, or
    neither names any, and for recovery windows beside domains."""
    if tokens.domains is None:
        if heldout is not None and heldout.domains is not None:
            raise ValueError("held-out windows are given by domain, and calibration windows are not: give both alike")
        return heldout
    if recovery is not None:
        raise ValueError(
            "recovery windows do not go with calibration windows by domain, on whose weights both steps agree: leave them out"
        )
    if heldout is None:
        return None
    names = tokens.domains.names
    if heldout.domains is None or set(heldout.domains.names) != set(names):
        there = "none" if heldout.domains is None else ", ".join(heldout.domains.names)
        raise ValueError(
            f"calibration windows are of the domains {', '.join(names)}, and held-out windows of {there}: give heldout= by the "
            "same names"
        )
    numbers = [names.index(name) for name in heldout.domains.names]
    places = tuple(numbers[place] for place in heldout.domains.places)
    return replace(heldout, domains=Domains(names, tokens.domains.weights, places))
