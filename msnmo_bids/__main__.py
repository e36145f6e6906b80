"""``python -m msnmo_bids``: the same program as ``run.py`` and ``msnmo``."""

import sys

from msnmo_bids.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
