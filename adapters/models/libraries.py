"""Messages of other libraries: silenced while they work, and shortened to one line where they fail."""

from __future__ import annotations

import contextlib
import logging
import textwrap
from collections.abc import Iterator

import huggingface_hub.utils.logging as hub_logging
import transformers.utils.logging as transformers_logging

__all__ = ["one_line", "quiet_libraries"]


def one_line(error: BaseException) -> str:
    """Shorten an error's message to one line; an error without one gives its type."""
    return textwrap.shorten(str(error), 400, placeholder=" ...") or type(error).__name__


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence what the libraries log while the context is open: whatever of it matters is raised as an error here."""
    before = transformers_logging.get_verbosity(), hub_logging.get_verbosity()
    transformers_logging.set_verbosity(logging.ERROR)
    hub_logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before[0])
        hub_logging.set_verbosity(before[1])
