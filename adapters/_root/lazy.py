"""Names of a package are imported when they are first used, so that `import gramian` waits neither for torch nor for scipy.

Every name stands once, in the stub beside the package's `__init__.py`: type checkers read it there, and so does `exports`.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from gramian.extras import complete, named

__all__ = ["exports"]


def exports(package: str, file: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Read `__getattr__`, `__dir__` and `__all__` of a package off the `from module import name as name` lines of its stub.

    package, file: the package's `__name__` and `__file__`. A name that the stub imports under another name is looked up by the
    one it has in its module. `__getattr__` raises AttributeError for a name that the stub does not hold, as any module does,
    and ImportError, with the command that helps, for a name that needs a package of an extra; `__dir__` omits such names, so
    that `help` works. A name that the stub imports from the package itself is a folder of it.
    """
    stub = ast.parse(Path(file).with_suffix(".pyi").read_text(encoding="utf-8"))
    homes = {
        alias.asname or alias.name: (node.module, alias.name)
        for node in stub.body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }

    def find(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module, there = homes[name]
        try:
            value = import_module(f"{package}.{name}") if module == package else getattr(import_module(module), there)
        except ModuleNotFoundError as error:
            raise named(error, f"{package}.{name}") from error
        setattr(sys.modules[package], name, value)
        return value

    def listed() -> list[str]:
        known = {*vars(sys.modules[package]), *homes}
        return sorted(known if complete() else filter(found, known))

    def found(name: str) -> bool:
        try:
            getattr(sys.modules[package], name)
        except ImportError:
            return False
        return True

    return find, listed, sorted(name for name, (module, _) in homes.items() if module != package)
