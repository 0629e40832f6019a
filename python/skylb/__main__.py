"""``python -m skylb`` and the command ``skylb``."""

import sys

from skylb.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
