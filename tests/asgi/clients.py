"""Starlette's test client, which also fits any other ASGI app."""

import warnings

with warnings.catch_warnings():
    # It prefers a successor of httpx, and warns where only httpx is installed.
    warnings.simplefilter("ignore")
    from starlette.testclient import TestClient

__all__ = ["TestClient"]
