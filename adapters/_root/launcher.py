"""The place of this process among those that torchrun has started, by the variables that it sets; torch is not imported."""

from __future__ import annotations

import os

__all__ = ["PeerLost", "follower", "local_rank", "restarted", "together"]


class PeerLost(RuntimeError):
    """Another process of the group has ended."""


def together() -> int:
    """How many processes were started to work together; 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def follower() -> bool:
    """Whether another process of the group speaks and writes: all but the first are silent."""
    return together() > 1 and os.environ["RANK"] != "0"


def local_rank() -> int:
    """The number of this process on its machine, which is that of its device."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def restarted() -> bool:
    """Whether torchrun has started the group again, after one of its processes died."""
    return together() > 1 and int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
