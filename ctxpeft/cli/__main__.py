"""`python -m ctxpeft.cli` is the `ctxpeft` command."""

import sys

from ctxpeft.cli import main

if __name__ == "__main__":
    sys.exit(main())
