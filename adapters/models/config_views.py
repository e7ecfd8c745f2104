"""A model's configuration as one of its modules sees it, with widths of the module's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["ConfigView"]


class ConfigView:
    """The configuration of a model, which stays shared, but for a few numbers that differ in one module.

    Some forward methods read the number of heads from the configuration and not from an attribute of their module. What is set
    on a view, such as the choice of an attention function, is set on the shared configuration, and what is set there is seen.
    """

    def __init__(self, config: Any, stated: Mapping[str, int]) -> None:
        vars(self).update(shared=config, stated=dict(stated))

    @classmethod
    def of(cls, config: Any, stated: Mapping[str, int]) -> ConfigView:
        """View a configuration, or what another view is of, with the numbers of both; the new ones hold."""
        if isinstance(config, cls):
            return cls(vars(config)["shared"], {**vars(config)["stated"], **stated})
        return cls(config, stated)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "shared" not in vars(self):  # while a copy is made there is nothing to look into yet
            raise AttributeError(name)
        stated = vars(self)["stated"]
        return stated[name] if name in stated else getattr(vars(self)["shared"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(vars(self)["shared"], name, value)
