"""`python -m gramian` is the `gramian` command."""

import sys

from gramian.adapters.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
