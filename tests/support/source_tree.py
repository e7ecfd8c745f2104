"""The repository's Python files as text: the module that each one is, what it imports, and where the README lists it.

Nothing is imported here, so that what is imported lazily, deferred or for type checkers alone is seen as well.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("solvers", "adapters", "proofs", "tests", "benchmarks")
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
PACKAGES: list[str] = SETTINGS["packages"]


def python_files(folder: Path) -> set[Path]:
    """Every Python file in a folder, at any depth, relative to it."""
    return {file.relative_to(folder) for file in folder.rglob("*.py") if "__pycache__" not in file.parts}


def folder_of(package: str) -> Path:
    """Where the files of a package stand, by the `package-dir` of pyproject.toml."""
    places: Mapping[str, str] = SETTINGS["package-dir"]
    home = max((name for name in places if f"{package}.".startswith(f"{name}.")), key=len)
    return ROOT.joinpath(places[home], *package.removeprefix(home).split("."))


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name; a package is the module of its `__init__.py`."""
    return {
        package if file.stem == "__init__" else f"{package}.{file.stem}": file
        for package in PACKAGES
        for file in sorted(folder_of(package).glob("*.py"))
    }


def stub_names(module: str, file: Path) -> dict[str, tuple[str, str]]:
    """The names that the stub beside a module exports, but for folders of its own, each with its module and its name there."""
    stub = file.with_suffix(".pyi")
    if not stub.exists():
        return {}
    found = imported(stub.read_text(encoding="utf-8"), module)
    return {name: (source, there) for source, there, name in found if there and source != module}


def imported(text: str, module: str) -> Iterator[tuple[str, str, str]]:
    """Every import of a file, wherever it stands: (module, name in it or "", name here). module: the file's own name, or that
    of the package whose `__init__` it is with a dot after it, which relative imports start from."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "", alias.asname or alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = module.split(".")[: -node.level] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((source, alias.name, alias.asname or alias.name) for alias in node.names)


def import_graph() -> dict[str, set[str]]:
    """The modules of the package that each of them imports: deferred imports, those for type checkers, and those that a stub
    promises included. A name taken from a package counts as taken from the module that holds it."""
    known = modules()
    exported = {name: stub_names(name, file) for name, file in known.items() if file.stem == "__init__"}

    def home(source: str, name: str) -> str | None:
        if name and f"{source}.{name}" in known:
            return f"{source}.{name}"
        if name in exported.get(source, {}):
            return home(*exported[source][name])
        return source if source in known else None

    def targets(module: str, file: Path) -> set[str]:
        inside = f"{module}." if file.stem == "__init__" else module
        pairs = {(source, name) for source, name, _ in imported(file.read_text(encoding="utf-8"), inside)}
        found = {home(source, name) for source, name in pairs | set(exported.get(module, {}).values())}
        return {target for target in found if target is not None} - {module}

    return {module: targets(module, file) for module, file in known.items()}


def first_names(text: str) -> set[str]:
    """The first names of every absolute import in a file."""
    return {source.partition(".")[0] for source, _, _ in imported(text, "")} - {""}


def readme_map(text: str) -> list[Path]:
    """The files that a README lists under its heading "Map", from top to bottom, relative to its folder.

    A fenced block of lines `room/   text` and `file.py   text`, deeper in a room by its indentation; other lines go on with
    the text of those above.
    """
    block = re.search(r"^#+ Map$.*?^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    if block is None:
        raise ValueError('there is no fenced block under a heading "Map"')
    listed: list[Path] = []
    rooms: list[tuple[int, Path]] = []
    for line in block[1].splitlines():
        head = re.match(r"( *)((?:\w+(?:/|\.py)(?:,? +|$))+)", line)
        if head is None:
            continue
        rooms = [(depth, room) for depth, room in rooms if depth < len(head[1])]
        within = rooms[-1][1] if rooms else Path()
        for name in re.findall(r"\w+(?:/|\.py)", head[2]):
            if name.endswith("/"):
                rooms.append((len(head[1]), within / name))
            else:
                listed.append(within / name)
    return listed


def upward(order: Iterable[Path], edges: Iterable[tuple[Path, Path]]) -> list[str]:
    """The imports among files of one folder that go up its map: both stand in one room (or in the folder itself) in two
    entries of it, and the one imported is not further down. A room is where its first file is, an `__init__.py` on top."""
    place: dict[Path, int] = {}
    for number, file in enumerate(order):
        for entry in (file, *file.parents):
            place.setdefault(entry, number)

    def entries(importer: Path, target: Path) -> tuple[Path, Path]:
        shared = next(depth for depth, (one, other) in enumerate(zip(importer.parts, target.parts)) if one != other)
        return Path(*importer.parts[: shared + 1]), Path(*target.parts[: shared + 1])

    return [
        f"{importer} imports {target}"
        for importer, target in edges
        for above, below in [entries(importer, target)]
        if place.get(above, -1) >= place.get(below, -1)
    ]
