"""What other libraries say: silenced while they work, and one line of it where they fail."""

from __future__ import annotations

import contextlib
import textwrap
from collections.abc import Iterator

import huggingface_hub.utils.logging as hub_logging
import transformers

__all__ = ["one_line", "quiet_libraries"]


def one_line(error: BaseException) -> str:
    return textwrap.shorten(str(error), 400, placeholder=" ...") or type(error).__name__


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence the libraries' reports: what they say that matters is raised as an error here."""
    ours, hubs = transformers.logging.get_verbosity(), hub_logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    hub_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(ours)
        hub_logging.set_verbosity(hubs)
