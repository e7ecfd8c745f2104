"""Save shrunk models so that they load again, and load them.

Three forms. Widths that the configuration can state load with stock `from_pretrained`. Other widths are recorded beside the
configuration, and load with `load`. Padded with zeros to widths that the configuration can state, any shrunk model loads
with stock `from_pretrained`, at the price of the padding.
"""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from gramian.adapters.models.checkpoint import check_output, load_model, save_model
from gramian.adapters.models.unit_groups import UnitGroup, kinds_of, rearrange, unit_groups_of
from gramian.adapters.models.widths import state_widths, stock_unit_groups, unstated_widths

__all__ = ["load", "padded", "save_structured"]


def save_structured(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    out: str | Path,
    *,
    pad: bool = False,
    report: dict[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """`save_model` of a shrunk model or, with `pad`, of its `padded` form, which every stock class loads."""
    check_output(out, overwrite)
    return save_model(padded(model) if pad else model, tokenizer, out, report=report, overwrite=overwrite)


def load(
    path: str | Path, *, dtype: str = "auto", device: str = "cpu"
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase | None]:
    """A saved model of any of the three forms and its tokeniser: `load_model` where nothing but a directory will do.

    FileNotFoundError: `path` is no directory, or holds no model; the network is never asked. ValueError: damaged weights or
    widths, or weights that are not of the recorded widths.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"no saved model {str(path)!r}: no such directory")
    return load_model(folder, dtype=dtype, device=device)


def padded(model: PreTrainedModel) -> PreTrainedModel:
    """A model of one width per kind of module that computes the same: P_u = 0, C_u = 0 for every unit u it has more.

    Exact: a unit adds C_u h(P_u x) to its module, which is 0 whatever h is. The widths are the largest of any block where
    the stock class accepts them, else those that `model.config` states. The given model stays as it is; what is in no
    depth-2 module is shared with it. ValueError: an unsupported family, a configuration that states less than the model
    has, or a consumer with a bias where the stock class has none: zeros do not make up for that.
    """
    for name, each in unstated_widths(model).items():  # raises where there is nothing to pad to
        if each.bias:
            raise ValueError(f"{name} has a bias, which {type(model).__name__} cannot have: save it without padding")
    shared = {id(tensor): tensor for tensor in [*model.parameters(), *model.buffers()]}
    twin = copy.deepcopy(model, shared)
    for kind in kinds_of(unit_groups_of(twin).values()):
        wide = common(twin, kind)
        for name, unit_group in kind.items():
            rearrange(twin, unit_group, *unit_group.resized(wide[name].units, wide[name].groups))
    state_widths(twin)
    return twin


def common(model: PreTrainedModel, kind: dict[str, UnitGroup]) -> dict[str, UnitGroup]:
    """Modules of one kind as they have to be padded: of the widths of the stock class where those must differ."""
    some = next(iter(kind.values()))
    groups = max(unit_group.groups for unit_group in kind.values())
    units = groups * max(unit_group.members for unit_group in kind.values())
    wide = {name: dataclasses.replace(unit_group, units=units, groups=groups) for name, unit_group in kind.items()}
    edits = dict(zip(some.structure.keys, (units, groups, some.size)))
    return wide if wide.items() <= stock_unit_groups(model, edits).items() else stock_unit_groups(model, {})
