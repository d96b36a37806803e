"""The demo: `app.py` on a free port, its tasks in a directory that is removed at the end."""

import logging
import os
import socket
import tempfile
from contextlib import suppress
from types import FrameType

import uvicorn
from app import app

PORT = 8000


class Server(uvicorn.Server):
    """Ends in order and with status 0, however often it is told to."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.should_exit = True


def listen() -> socket.socket:
    """A socket on the usual port, or on any other if that is taken."""
    for port in (PORT, 0):
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            listener.close()
        else:
            return listener
    raise SystemExit("There is no free port on 127.0.0.1.")


def main() -> None:
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(name)-25s %(message)s", datefmt="%H:%M:%S"
    )
    with tempfile.TemporaryDirectory(prefix="asyncz-demo-") as directory, listen() as listener:
        os.chdir(directory)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        print(f"The demo is at {address}")
        print(f"Its tasks:     curl {address}/tasks")
        print(f"Add another:   curl -X POST '{address}/tasks/in/3?text=tea'")
        print("Ctrl-C ends it.", flush=True)
        config = uvicorn.Config(
            app, log_level="warning", log_config=None, timeout_graceful_shutdown=1
        )
        server = Server(config)
        server.run(sockets=[listener])
        os.chdir("/")
    if not server.started:
        raise SystemExit("The demo could not be started.")


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):  # before the server has taken the signal over
        main()
