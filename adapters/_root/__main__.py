"""The `gramian` command, which is also `python -m gramian`."""

import os
import sys

from gramian.signals import end_by_signals

__all__ = ["command"]


def command() -> int:
    """Run the command line of this process, and return its exit code."""
    end_by_signals()  # before imports that take a while
    from gramian.adapters.cli.main import main

    return main()


if __name__ == "__main__":
    if sys.path[:1] == [os.getcwd()]:  # which `python -m` puts first: what stands there must not take the place of a package
        del sys.path[0]
    sys.exit(command())
