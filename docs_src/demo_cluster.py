"""The demo of several workers: `cluster_app.py` with four of them, on a SQLite file."""

import os
import socket
import tempfile
from pathlib import Path

import uvicorn

WORKERS = 4
PORT = 8000


def free_port() -> int:
    """The usual port, or any other if that is taken."""
    for port in (PORT, 0):
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(listener.getsockname()[1])
    raise SystemExit("There is no free port on 127.0.0.1.")


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="asyncz-demo-") as directory:
        os.environ["DEMO_DATABASE"] = f"sqlite:///{directory}/demo.db"
        port = free_port()
        print(f"{WORKERS} workers share one schedule: http://127.0.0.1:{port}", flush=True)
        print("Kill one (kill -9 and its number) and watch. Ctrl-C ends it.", flush=True)
        uvicorn.run(
            "cluster_app:app",
            app_dir=str(Path(__file__).parent),
            port=port,
            workers=WORKERS,
            log_level="warning",
            timeout_graceful_shutdown=1,
        )


if __name__ == "__main__":
    main()
