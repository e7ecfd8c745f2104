"""What `gramian`, `gramian.solvers` and its estimators export is documented in numpydoc, completely and truly; examples run."""

from __future__ import annotations

import ast
import builtins
import doctest
import inspect
import re
import sys
import textwrap
from enum import Enum
from importlib import import_module
from itertools import pairwise
from types import UnionType
from typing import Any, NamedTuple

import pytest

SECTIONS = ("Parameters", "Attributes", "Methods", "Returns", "Yields", "Raises", "See Also", "Notes", "References", "Examples")
LISTED = ("Parameters", "Attributes", "Methods", "Returns", "Yields", "Raises")  # sections whose entries are described
PACKAGES = ("gramian", "gramian.solvers", "gramian.solvers.regression")
NAMES = [(package, name) for package in PACKAGES for name in import_module(package).__all__]
CASES = [pytest.param(*names, id=".".join(names)) for names in NAMES if names[1] != "__version__"]


class Entry(NamedTuple):
    """`name, other : type` with the lines below it."""

    head: str
    body: str

    @property
    def names(self) -> list[str]:
        without_arguments = re.sub(r"\(.*?\)", "", self.head.partition(" : ")[0])
        return [name.strip().lstrip("*") for name in without_arguments.split(",")]


class Doc:
    """A numpydoc docstring: summary, text, and sections, in order."""

    def __init__(self, text: str) -> None:
        parts = re.split(r"^(\S.*)\n-{3,}[ ]*$\n?", text, flags=re.MULTILINE)
        self.lead, self.order = parts[0], parts[1::2]
        self.sections = dict(zip(self.order, parts[2::2]))

    def entries(self, section: str) -> list[Entry]:
        blocks = re.split(r"^(?=\S)", self.sections.get(section, ""), flags=re.MULTILINE)
        found = [block.partition("\n") for block in blocks if block.strip()]
        return [Entry(head.strip(), body.strip()) for head, _, body in found]

    def names(self, section: str) -> list[str]:
        return [name for entry in self.entries(section) for name in entry.names]


def problems(found: Any, text: str) -> list[str]:
    """What is wrong with the docstring `text` of an exported class or function."""
    doc, wrong = Doc(text), []
    summary, _, rest = doc.lead.partition("\n")
    if not summary.strip() or rest.partition("\n")[0].strip():
        wrong.append("the summary is not one line with a blank line after it")
    if unknown := [name for name in doc.order if name not in SECTIONS]:
        wrong.append(f"unknown sections {unknown}")
    places = [SECTIONS.index(name) for name in doc.order if name in SECTIONS]
    if any(one >= other for one, other in pairwise(places)):
        wrong.append(f"sections out of order: {doc.order}")
    for section in LISTED:
        if bare := [entry.head for entry in doc.entries(section) if not entry.body]:
            wrong.append(f"{section}: nothing is said of {bare}")
    for section in ("Parameters", "Attributes"):
        if untyped := [entry.head for entry in doc.entries(section) if " : " not in entry.head]:
            wrong.append(f"{section}: no type is given for {untyped}")
    return wrong + (class_problems if inspect.isclass(found) else function_problems)(found, doc)


def function_problems(found: Any, doc: Doc) -> list[str]:
    wrong = differences("Parameters", doc.names("Parameters"), list(inspect.signature(found).parameters))
    if inspect.signature(found).return_annotation not in (None, "None") and not {"Returns", "Yields"} & {*doc.order}:
        wrong.append("no section Returns or Yields")
    return wrong + raised_problems([found], doc)


def class_problems(found: Any, doc: Doc) -> list[str]:
    public = [name for name in vars(found) if not name.startswith("_")]
    if issubclass(found, Enum):
        return differences("Attributes", doc.names("Attributes"), list(found.__members__))
    if getattr(found, "_is_protocol", False):
        members = {*public, *(name for name in vars(found).get("__annotations__", {}) if not name.startswith("_"))}
        return differences("Methods and Attributes", doc.names("Methods") + doc.names("Attributes"), sorted(members))
    wrong = differences("Parameters", doc.names("Parameters"), list(inspect.signature(found).parameters))
    made_by = [vars(found)[name] for name in ("__init__", "__post_init__") if name in vars(found)]
    kept = {*dir(found), *re.findall(r"self\.(\w+)(?:: [^=\n]+)? = ", "".join(map(source, made_by)))}
    if strangers := {name for name in doc.names("Attributes") if not name.endswith("_")} - kept:  # those are set by `fit`
        wrong.append(f"Attributes: there are no {sorted(strangers)}")
    if strangers := set(doc.names("Methods")) - {*public}:
        wrong.append(f"Methods: there are no {sorted(strangers)}")
    silent = [name for name in public if inspect.isfunction(vars(found)[name]) and not vars(found)[name].__doc__]
    if silent:
        wrong.append(f"methods without a docstring: {silent}")
    return wrong + raised_problems(made_by, doc)


def differences(section: str, described: list[str], there: list[str]) -> list[str]:
    missing, strange = [name for name in there if name not in described], [name for name in described if name not in there]
    twice = sorted({name for name in described if described.count(name) > 1})
    found = {"not described": missing, "not there": strange, "described twice": twice}
    return [f"{section}: {what} {names}" for what, names in found.items() if names]


def raised_problems(functions: list[Any], doc: Doc) -> list[str]:
    """Exceptions that the body raises itself have to be described, and what is described has to be one."""
    described, wrong = set(doc.names("Raises")), []
    for found in map(inspect.unwrap, functions):
        for node in ast.walk(ast.parse(source(found))):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name):
                if node.exc.func.id not in described:
                    wrong.append(f"Raises: {node.exc.func.id} is not described")
    for found in map(inspect.unwrap, functions):
        there = {**vars(builtins), **vars(sys.modules[found.__module__])}
        if strangers := [name for name in described if not inspect.isclass(there.get(name))]:
            wrong.append(f"Raises: there are no {strangers}")
    return sorted(set(wrong))


def source(found: Any) -> str:
    try:
        return textwrap.dedent(inspect.getsource(found))
    except OSError:  # what `dataclass` makes has none
        return ""


@pytest.mark.parametrize("package, name", CASES)
def test_an_exported_name_is_documented(package, name):
    module = import_module(package)
    found = getattr(module, name)
    if isinstance(found, UnionType):  # it has no docstring of its own, but its members have
        assert {member.__name__ for member in found.__args__} <= {*module.__all__}
        return
    text = inspect.getdoc(found)
    assert text and not problems(found, text)
    examples = doctest.DocTestParser().get_doctest(Doc(text).sections.get("Examples", ""), {}, name, None, 0)
    assert any(example.want for example in examples.examples), "there is no example that prints"
    said: list[str] = []
    assert not doctest.DocTestRunner().run(examples, out=said.append).failed, "".join(said)


GOOD = """Add two numbers.

Parameters
----------
one, other : float
    What to add.

Returns
-------
float
    The sum.

Raises
------
ValueError
    For infinities.

Examples
--------
>>> 1 + 1
2
"""


def added(one: float, other: float) -> float:
    if one - one != 0:
        raise ValueError("infinite")
    return one + other


@pytest.mark.parametrize(
    "before, after, complaint",
    [
        ("Add two numbers.\n", "Add\ntwo numbers.\n", "the summary"),
        ("one, other : float", "one : float", "not described"),
        ("one, other : float", "one, other, third : float", "not there"),
        ("one, other : float", "one, other, one : float", "described twice"),
        ("one, other : float", "one, other", "no type"),
        ("    What to add.\n", "", "nothing is said"),
        ("Returns\n-------\nfloat\n    The sum.\n\n", "", "no section Returns"),
        ("ValueError\n    For", "TypeError\n    For", "ValueError is not described"),
        ("ValueError\n    For", "ValueError, Nonsense\n    For", "there are no ['Nonsense']"),
        ("Examples\n--------", "Example\n-------", "unknown sections"),
        ("Returns\n-------\nfloat\n    The sum.\n\n", "Notes\n-----\nNone.\n\nReturns\n-------\nfloat\n    Sum.\n\n", "order"),
    ],
)
def test_the_parser_sees_what_is_wrong(before, after, complaint):
    assert problems(added, GOOD) == []
    assert before in GOOD
    assert any(complaint in problem for problem in problems(added, GOOD.replace(before, after)))
