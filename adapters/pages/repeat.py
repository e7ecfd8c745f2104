"""How a run is repeated: the command, the recipe, and all settings and versions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from gramian.adapters.pages.page import escape, table_of
from gramian.adapters.pages.records import Run, mapping

__all__ = ["rows_of_settings", "settings"]


def settings(run: Run) -> str:
    """The settings, versions, and commands that repeat the run."""
    model = run.model or "MODEL"
    recipe = mapping(run.settings.get("recipe"))
    words = model if all(letter.isalnum() or letter in "/._-~" for letter in model) else f"'{model}'"
    lines = f"gramian prune {words} --recipe gramian.json --out again"
    how = (
        "<p>From the directory of this page, which holds <code>gramian.json</code>, this command repeats the run, to the byte "
        f"on the same machine and versions:</p>\n<pre>{escape(lines)}</pre>\n"
        "<p>The recipe, where it departs from the defaults:</p>\n"
        f"<pre>{escape(json.dumps(recipe, indent=2, ensure_ascii=False, default=str))}</pre>"
    )
    return f"{how}\n<details open><summary>All settings and versions</summary>\n{settings_table(run)}\n</details>"


def settings_table(run: Run) -> str:
    """A row per setting."""
    rows = [["model", escape(run.model)]] if run.model else []
    rows += rows_of_settings(
        {name: run.settings[name] for name in run.settings if name not in ("recipe", "refused", "experts")}
    )
    prints = mapping(run.document.get("fingerprint"))
    if prints.get("weights"):
        rows.append(["SHA-256 of the dense weights", f"<code>{escape(str(prints['weights']))}</code>"])
    return table_of("Settings of the run", [], rows, kind="plain")


def rows_of_settings(some: Mapping[str, Any]) -> list[list[str]]:
    """A row of HTML per setting."""
    return [[escape(name.replace("_", " ")), in_words(value)] for name, value in some.items()]


def in_words(value: Any) -> str:
    """A setting as HTML."""
    if isinstance(value, Mapping):
        return ", ".join(f"{escape(str(key))} {in_words(each)}" for key, each in value.items()) or "none"
    if isinstance(value, list | tuple):
        return escape(" × ".join(map(str, value)))
    if value is None or value is True or value is False:
        return {None: "–", True: "yes", False: "no"}[value]
    return escape(str(value))
