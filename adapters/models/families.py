"""The table of model families that run block by block: where a family's blocks are, its operators in the order in which
activations meet them, and the depth-2 modules that they form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gramian.adapters.models.matching import matches

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "FAMILIES",
    "GROUP",
    "UNIT",
    "Family",
    "Structure",
    "blocks_of",
    "chosen_names",
    "family_named",
    "family_of",
    "operator_names",
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

    blocks: the dotted path from the causal language model to its list of blocks. stages: operators of a block as dotted
    paths; those of one stage receive the very same input, and a stage comes after every stage that its input depends on.
    structures: the depth-2 modules of a block; without any, units of this family cannot be removed.
    """

    blocks: str
    stages: tuple[tuple[str, ...], ...]
    structures: tuple[Structure, ...] = ()


UNIT, GROUP = ("unit",), ("group",)

GATED = Family(
    "model.layers",
    (
        ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        ("self_attn.o_proj",),
        ("mlp.gate_proj", "mlp.up_proj"),
        ("mlp.down_proj",),
    ),
    (
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
        "model.decoder.layers",
        (
            ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
            ("self_attn.out_proj",),
            ("fc1",),
            ("fc2",),
        ),
        (
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
        "transformer.h",
        (("attn.c_attn",), ("attn.c_proj",), ("mlp.c_fc",), ("mlp.c_proj",)),
        (
            Structure("attn", (("attn.c_attn", 3 * UNIT),), "attn.c_proj", "head_dim"),
            Structure("mlp", (("mlp.c_fc", UNIT),), "mlp.c_proj", keys=("n_inner",), activation="mlp.act"),
        ),
    ),
}


def family_of(model: nn.Module) -> Family:
    """Find the row of a Hugging Face model by its `config.model_type`; ValueError if there is none."""
    return family_named(getattr(getattr(model, "config", None), "model_type", None))


def family_named(model_type: str | None) -> Family:
    """Find the row of a model type; if there is none, a ValueError says which there are, and how to go on."""
    if model_type is None or model_type not in FAMILIES:
        raise ValueError(
            f"no family row for model type {model_type!r}; supported: {', '.join(sorted(FAMILIES))}. Add a row to "
            "gramian.adapters.models.families.FAMILIES (path of the block list, operators by stage), or prune single layers "
            "with gramian.adapters.capture, which needs no row"
        )
    return FAMILIES[model_type]


def blocks_of(model: nn.Module) -> nn.ModuleList:
    """Find the model's blocks; ValueError where the row's path does not lead to a list of modules."""
    from torch import nn  # here, so that the table is read without waiting for torch

    path = family_of(model).blocks
    try:
        blocks = model.get_submodule(path)
    except AttributeError as error:
        raise ValueError(f"{type(model).__name__} has no {path!r}: load it as a causal language model") from error
    if not isinstance(blocks, nn.ModuleList):
        raise ValueError(f"{path!r} of {type(model).__name__} is a {type(blocks).__name__}, not a list of blocks")
    if not len(blocks):
        raise ValueError(f"{path!r} of {type(model).__name__} has no blocks: its configuration states none")
    return blocks


def operator_names(model: nn.Module, include: str | None = None, exclude: str | None = None) -> list[str]:
    """List the full names of the operators to prune, in order: those that `include` matches somewhere (a regular expression;
    None matches all) and `exclude` does not. ValueError for a bad expression, and where no operator is chosen."""
    family = family_of(model)
    names = [
        f"{family.blocks}.{index}.{operator}"
        for index in range(len(blocks_of(model)))
        for stage in family.stages
        for operator in stage
    ]
    return chosen_names(names, include, exclude)


def chosen_names(names: list[str], include: str | None, exclude: str | None) -> list[str]:
    """List those of the names that `include` matches and `exclude` does not. Errors are those of `operator_names`."""
    chosen = [name for name in names if matches(include or "", name) and not (exclude is not None and matches(exclude, name))]
    if not chosen:
        raise ValueError(f"no operator is left by include={include!r}, exclude={exclude!r}; names look like {names[0]!r}")
    return chosen
