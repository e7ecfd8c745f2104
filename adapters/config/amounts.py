"""How sparse operators become: a number, a pattern, or rules that give each operator its own by its name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

from gramian.adapters.config.settings import Kind, is_expression
from gramian.adapters.models.matching import matches
from gramian.solvers import Pattern, TopK, parse_pattern

__all__ = ["AMOUNT", "Rules", "named_amount", "rules_of"]

REST = "*"
Amount = float | Pattern


@dataclass(frozen=True)
class Rules:
    """Amounts by regular expression of an operator's full name; the first that matches somewhere holds, and `*` is last."""

    rules: tuple[tuple[str, Amount], ...]

    def amount(self, name: str) -> Amount:
        """The amount of an operator; 0 where no rule matches."""
        return next((amount for rule, amount in self.rules if rule == REST or matches(rule, name)), 0.0)

    def patterns(self, names: Iterable[str], per_row: bool) -> dict[str, Pattern]:
        """The pattern of every operator that does not remain dense. per_row: how a number is met.

        ValueError for a rule that holds for no operator: it is misspelt, or one before it takes all that it matches.
        """
        names = list(names)
        alone = len(self.rules) == 1 and self.rules[0][0] == REST
        used = {next((rule for rule, _ in self.rules if rule == REST or matches(rule, name)), None) for name in names}
        for rule, _ in self.rules:
            if rule not in used and rule != REST:
                matched = [name for name in names if matches(rule, name)]
                why = f"an earlier rule takes {matched[0]}, and all that it matches" if matched else "it matches no operator"
                raise ValueError(f"the rule {rule!r} of sparsity changes nothing, as {why}; names look like {names[0]!r}")
        amounts = {name: self.amount(name) for name in names}
        return {name: pattern_of(amount, per_row) for name, amount in amounts.items() if alone or amount != 0}

    def kinds(self, per_row: bool) -> list[Pattern]:
        """Every pattern that the rules name, once."""
        return list(dict.fromkeys(pattern_of(amount, per_row) for _, amount in self.rules))


def pattern_of(amount: Amount, per_row: bool) -> Pattern:
    """The pattern of an amount."""
    return TopK(amount, per_row) if isinstance(amount, float) else amount


def rules_of(sparsity: Any) -> Rules:
    """The rules that a value of the setting spells."""
    if isinstance(sparsity, Mapping):
        rest = [(REST, sparsity[REST])] if REST in sparsity else []
        given = [*((rule, amount) for rule, amount in sparsity.items() if rule != REST), *rest]
    else:
        given = [(REST, sparsity)]
    return Rules(tuple((rule, one_amount(amount)) for rule, amount in given))


def one_amount(value: Any) -> Amount:
    """A number in [0, 1) or a pattern; ValueError for anything else."""
    if isinstance(value, str):
        value = parse_pattern(value) if ":" in value else float(value)
    if isinstance(value, Real) and not isinstance(value, bool):
        number = float(value)
        if not 0 <= number < 1:
            raise ValueError(f"{value} is not in [0, 1)")
        return number
    if not callable(getattr(value, "select", None)):
        raise ValueError(f"{value!r} is no amount")
    pattern: Pattern = value
    return pattern


def is_amount(value: Any) -> bool:
    """Whether a value is an amount, or rules of at least one."""
    try:
        rules = rules_of(value).rules
    except ValueError:
        return False
    return bool(rules) and all(rule == REST or is_expression(rule) for rule, _ in rules)


def read_amount(text: str) -> float | str:
    """The amount that a command line spells."""
    return text if ":" in text else float(text)


def named_amount(text: str) -> tuple[str, float | str]:
    """A rule such as `mlp=0.6`; an expression may hold `=`, and an amount does not."""
    rule, equals, amount = text.rpartition("=")
    if not (rule and equals and is_amount({rule: amount})):
        raise ValueError(f"{text!r} is not REGEX=S, such as mlp=0.6 or down_proj=2:4")
    return rule, read_amount(amount)


def write_amount(value: Any) -> Any:
    """An amount, or rules, as plain numbers, strings and lists."""
    if isinstance(value, Mapping):
        return {rule: write_amount(amount) for rule, amount in value.items()}
    if isinstance(value, TopK):
        return value.sparsity
    return float(value) if isinstance(value, Real) else str(value)


AMOUNT = Kind(
    "a sparsity in [0, 1), a pattern such as 2:4, or a mapping of them by regular expression", is_amount, read_amount,
    "float, str, mapping or Pattern", "S", write=write_amount,
)  # fmt: skip
