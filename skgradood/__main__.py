"""``python -m skgradood``: the command line."""

import sys

from skgradood.cli import main

if __name__ == "__main__":
    sys.exit(main())
