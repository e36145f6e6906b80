#!/usr/bin/env python3
"""Entry point of the BIDS App: ``run.py BIDS_DIR OUTPUT_DIR {participant,group}``."""

import sys

from msnmo_bids.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
