"""Figures of an evaluation on probes of the context: what a model copies, and what it finds again."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch

from gramian.adapters.data.context import begin_token
from gramian.adapters.evaluation.figures import Figure, paired
from gramian.adapters.evaluation.pairs import Pair
from gramian.adapters.measure.probes import COPIED, DEPTHS, FILLED, copies, copying, finding, needles
from gramian.progress import bar

__all__ = ["copying_figures", "needle_figures"]

ITEMS = 8  # windows of each length that are copied; those that hold a fact are half as many at each depth
BATCH = 4


def copying_figures(pair: Pair, left_out: dict[str, str]) -> list[Figure]:
    """How much of random tokens of the text a model copies."""
    special = set(pair.tokenizer.all_special_ids) if pair.tokenizer is not None else set()
    vocabulary = [token for token in pair.rows.unique().tolist() if token not in special]
    begin = begin_token(pair.model, pair.tokenizer)
    figures = []
    for length in COPIED:
        rows = copies(vocabulary, begin, length, ITEMS, pair.seed) if vocabulary else pair.rows[:0]
        if not vocabulary or not pair.fits(rows.shape[1]):
            left_out[f"copying of {length} tokens"] = "they do not fit twice in the context" if vocabulary else "no tokens"
            continue
        with bar(1, f"copying {length} tokens", "probe", pair.shown) as done:
            ours, theirs = pair.both(partial(copying, rows=rows, length=length))
            done.update()
        for place, name in enumerate((f"copied, of {length} tokens", f"mean log p of {length} copied tokens")):
            figures.append(paired("copying", name, ours[place], None if theirs is None else theirs[place], pair.seed))
    return figures


def needle_figures(pair: Pair, left_out: dict[str, str]) -> list[Figure]:
    """Whether a model finds a fact again, by the length of the text around it and by its depth there."""
    if pair.tokenizer is None:
        left_out["facts in text"] = "there is no tokenizer"
        return []
    begin = begin_token(pair.model, pair.tokenizer)
    special = torch.tensor(pair.tokenizer.all_special_ids, dtype=torch.int64)
    filler = pair.rows[~torch.isin(pair.rows, special)]
    figures: list[Figure] = []
    by_depth: list[tuple[Any, Any]] = []
    for length in FILLED:
        what = f"facts in {length} tokens"
        if len(filler) < 2 * length:  # those around the fact, and some more before them
            left_out[what] = "the text is shorter"
            continue
        probe = needles(pair.tokenizer, begin, filler, length, ITEMS // 2, pair.seed)
        if probe is None or not pair.fits(probe.rows.shape[1]):
            left_out[what] = (
                "the tokenizer cannot tell the answers apart" if probe is None else "they do not fit in the context"
            )
            continue
        with bar(1, what, "probe", pair.shown) as done:
            found = pair.both(partial(finding, probe=probe, batch=BATCH))
            done.update()
        by_depth.append(found)
        figures += found_figures(pair, f"in {length} tokens", found)
    if not by_depth:
        return figures
    for place, depth in enumerate(DEPTHS):
        some = slice(place * (ITEMS // 2), (place + 1) * (ITEMS // 2))
        joined = [
            None if side[0] is None else [np.concatenate([each[what][some] for each in side]) for what in range(2)]
            for side in zip(*by_depth)
        ]
        figures += found_figures(pair, f"at a depth of {100 * depth:.0f} %", (joined[0], joined[1]))
    return figures


def found_figures(pair: Pair, where: str, found: tuple[Any, Any]) -> list[Figure]:
    """Two figures of facts: how many are found, and how likely they are."""
    ours, theirs = found
    names = (f"facts found {where}", f"log p of facts {where}")
    return [
        paired("needle", name, ours[place], None if theirs is None else theirs[place], pair.seed)
        for place, name in enumerate(names)
    ]
