"""Serve the app with `uvicorn.run`, as a program of one's own does: `python -m served.run PORT`."""

import sys

import uvicorn

from .app import app

if __name__ == "__main__":
    uvicorn.run(app, port=int(sys.argv[1]))
