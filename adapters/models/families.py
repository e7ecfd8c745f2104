"""The table of model families: what is known beforehand of a family, and need not be found by running it.

Blocks and operators are found by `discovery`, so that a row is there for the depth-2 modules of a family, or of a user's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gramian.adapters.models.matching import matches

if TYPE_CHECKING:
    pass

__all__ = [
    "FAMILIES",
    "GROUP",
    "SHIPPED",
    "UNIT",
    "Family",
    "Structure",
    "chosen_names",
]


@dataclass(frozen=True)
class Structure:
    """A depth-2 module of a block, f(x) = sum over units u of C_u h(P_u x).

    A unit (a hidden channel, a query head) is some rows P_u of the producers, biases included, and some columns C_u of the
    consumer. producers: dotted paths, each with the levels of its sections of rows, one section after another: rows of a
    `unit` section belong to single units, rows of a `group` section to groups of units that share them (the keys and values
    of grouped-query attention). consumer: its dotted path. owner: the module whose attributes repeat the widths (the empty
    path is the block). unit_size: the owner's attribute with the rows of a unit, None for one row. keys: where the
    configuration states the number of units, of groups, and the unit size; empty where it ties them to something else.
    activation: the dotted path of the activation a of a feed-forward module, h = a(first producer), times the second if
    there is one; empty for attention, and where it is no module. interleaved: rows lie group by group, those of each section
    together, and not section by section. groups: the owner's attribute with the number of groups, where no section says it.
    counts: the owner's attributes that forward methods reshape by, each with what it counts (`units`, `groups`, `members` of a
    group, `outputs` and `group_outputs`, the rows of all units and of all groups), `config.` before what they read from the
    configuration; None for the usual ones.
    """

    owner: str
    producers: tuple[tuple[str, tuple[str, ...]], ...]
    consumer: str
    unit_size: str | None = None
    keys: tuple[str, ...] = ()
    activation: str = ""
    interleaved: bool = False
    groups: str = ""
    counts: tuple[tuple[str, str], ...] | None = None


@dataclass(frozen=True)
class Family:
    """One row of the table.

    blocks: the dotted path from the model to its list of blocks; found where it is empty. stages: operators of a block as
    dotted paths; those of one stage receive the very same input, and a stage comes after every stage that its input depends on;
    found where there are none. structures: the depth-2 modules of a block; without any, units of this family cannot be removed.
    """

    blocks: str = ""
    stages: tuple[tuple[str, ...], ...] = ()
    structures: tuple[Structure, ...] = ()


UNIT, GROUP = ("unit",), ("group",)

GATED = Family(
    structures=(
        Structure(
            "self_attn",
            (("self_attn.q_proj", UNIT), ("self_attn.k_proj", GROUP), ("self_attn.v_proj", GROUP)),
            "self_attn.o_proj",
            "head_dim",
            ("num_attention_heads", "num_key_value_heads", "head_dim"),
        ),
        Structure(
            "mlp",
            (("mlp.gate_proj", UNIT), ("mlp.up_proj", UNIT)),
            "mlp.down_proj",
            keys=("intermediate_size",),
            activation="mlp.act_fn",
        ),
    ),
)

FAMILIES: dict[str, Family] = {
    "llama": GATED,
    "mistral": GATED,
    "qwen2": GATED,
    "qwen3": GATED,
    "gemma3_text": GATED,
    "opt": Family(
        structures=(
            Structure(
                "self_attn",
                (("self_attn.q_proj", UNIT), ("self_attn.k_proj", UNIT), ("self_attn.v_proj", UNIT)),
                "self_attn.out_proj",
                "head_dim",
            ),
            Structure("", (("fc1", UNIT),), "fc2", keys=("ffn_dim",), activation="activation_fn"),
        ),
    ),
    "gpt2": Family(
        structures=(
            Structure("attn", (("attn.c_attn", 3 * UNIT),), "attn.c_proj", "head_dim"),
            Structure("mlp", (("mlp.c_fc", UNIT),), "mlp.c_proj", keys=("n_inner",), activation="mlp.act"),
        ),
    ),
}

SHIPPED = dict(FAMILIES)  # rows that tests hold to be true; units of other rows are used once they are proven


def chosen_names(names: list[str], include: str | None, exclude: str | None) -> list[str]:
    """List those of the names that `include` matches and `exclude` does not. Errors are those of `operator_names`."""
    chosen = [name for name in names if matches(include or "", name) and not (exclude is not None and matches(exclude, name))]
    if not chosen:
        raise ValueError(f"no operator is left by include={include!r}, exclude={exclude!r}; names look like {names[0]!r}")
    return chosen
