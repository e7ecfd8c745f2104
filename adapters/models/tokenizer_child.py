"""A process of its own that tries a tokeniser: whatever panics, never ends or takes all memory there harms nothing else.

`python -I tokenizer_child.py LIBRARY BYTES SECONDS` imports the package `tokenizers` from the directory LIBRARY, and may take
BYTES of memory, and SECONDS for a piece. Its stdin is one piece of UTF-8 after another, each after its length in eight bytes:
first a tokeniser as JSON, then texts. It answers every piece with an empty line once it is done with it, or with a line that
says why it cannot be. It ends with 1 when it runs out of time.
"""

from __future__ import annotations

import faulthandler
import os
import sys
from contextlib import suppress


def main(library: str, memory: int, seconds: float) -> None:
    """Answer until stdin ends."""
    with suppress(ImportError, ValueError, OSError):  # not every system has such limits
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    sys.path.append(library)
    from tokenizers import Tokenizer

    tokenizer = None
    with open(os.devnull, "w") as nowhere:
        while len(head := sys.stdin.buffer.read(8)) == 8:
            piece = sys.stdin.buffer.read(int.from_bytes(head, "little")).decode()
            answer = ""
            faulthandler.dump_traceback_later(seconds, exit=True, file=nowhere)  # it needs no turn of the interpreter
            try:
                if tokenizer is None:
                    tokenizer = Tokenizer.from_str(piece)
                    tokenizer.no_truncation()
                    tokenizer.no_padding()
                else:
                    tokenizer.encode(piece, add_special_tokens=False)
            except BaseException as error:  # the library panics with an exception that is no Exception
                answer = " ".join(f"{type(error).__name__}: {error}".split())
            faulthandler.cancel_dump_traceback_later()
            sys.stdout.buffer.write(f"{answer}\n".encode())
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
