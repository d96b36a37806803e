"""Let workers start at once on an empty store, again and again.

`python -m tests.chaos.start_rounds --store all --rounds 50` says how many starts failed.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser

from .places import PLACES, Place
from .starts import start_together


def main() -> None:
    """Read the command line; the exit code says whether no start has failed."""
    parser = ArgumentParser(prog="python -m tests.chaos.start_rounds", description=__doc__)
    parser.add_argument("--store", choices=[*PLACES, "all"], default="all")
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--workers", type=int, default=8)
    given = parser.parse_args()
    failed = 0
    for kind in PLACES if given.store == "all" else [given.store]:
        place = Place(kind)
        try:
            wrong = [
                text
                for _ in range(given.rounds)
                for text in start_together(place.new_address(), given.workers)
            ]
        finally:
            place.close()
        print(f"{kind:<11} {given.rounds * given.workers} starts, {len(wrong)} failed", flush=True)
        for text in wrong[:5]:
            print(f"    {text}")
        failed += len(wrong)
    sys.exit(min(failed, 1))


if __name__ == "__main__":
    main()
