"""The process in which llama.cpp's converter runs: `gguf_converter_child.py SCRIPT ARGUMENTS...`, until its stdin ends."""

from __future__ import annotations

import os
import runpy
import sys
import threading


def until_the_end() -> None:
    """End this process when the one that started it has ended."""
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=until_the_end, daemon=True).start()
    script = sys.argv[1]
    sys.argv = sys.argv[1:]
    sys.path.insert(0, os.path.dirname(script))
    runpy.run_path(script, run_name="__main__")
