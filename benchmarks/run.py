"""Measures asyncz and its peers side by side: ``python benchmarks/run.py --help``."""

from __future__ import annotations

import sys

from suite.command import main

if __name__ == "__main__":
    sys.exit(main())
