"""Float32 means float32: no product of a solver is computed in less."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from threading import Lock
from typing import Any

__all__ = ["full_precision"]

ONE_AT_A_TIME = Lock()
UNDER_WAY: list[Callable[[], None]] = []  # one for every block that is under way: how to restore what was before the first
AUTOCAST = ("cpu", "cuda", "xpu")  # devices on which torch's autocast rounds float32 products to half precision


@contextmanager
def full_precision() -> Iterator[None]:
    """Compute float32 products in float32, whatever a program has set for its models.

    TF32 and bfloat16 keep 10 and 7 bits of 23. The setting is torch's and global, and restored when the last of the blocks that
    run at a time ends; `torch.autocast`, which is each thread's own, is off within the block. cupy computes in float32 unless
    the variable CUPY_TF32 of the environment is 1, which is its user's own choice.
    """
    torch: Any = sys.modules.get("torch")
    if torch is None or getattr(torch.__spec__, "_initializing", False):  # then nobody has set anything yet
        yield
        return
    with ONE_AT_A_TIME:
        UNDER_WAY.append(UNDER_WAY[0] if UNDER_WAY else restoring(torch))
        torch.set_float32_matmul_precision("highest")
    try:
        with ExitStack() as autocasts:
            for kind in AUTOCAST:
                if torch.is_autocast_enabled(kind):
                    autocasts.enter_context(torch.autocast(kind, enabled=False))
            yield
    finally:
        with ONE_AT_A_TIME:
            restore = UNDER_WAY.pop()
            if not UNDER_WAY:
                restore()


def restoring(torch: Any) -> Callable[[], None]:
    """Return a function that sets torch's precision of products back to what it is now, in the one way or the other of its two.

    They are a string for all devices, and since torch 2.9 one for each. Where the two differ, torch refuses to read the former.
    """
    try:
        common = torch.get_float32_matmul_precision()
    except RuntimeError:
        common = "highest"
    parts = [torch.backends.cuda.matmul, getattr(torch.backends.mkldnn, "matmul", None)]
    flags = [(part, part.fp32_precision) for part in parts if hasattr(part, "fp32_precision")]

    def restore() -> None:
        """Set the precision back."""
        torch.set_float32_matmul_precision(common)
        for part, precision in flags:
            part.fp32_precision = precision

    return restore
