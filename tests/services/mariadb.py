"""A genuine MariaDB for tests: one that runs here or one of their own, and private ones."""

from __future__ import annotations

import atexit
import os
import shutil
from functools import cache

import pymysql  # type: ignore[import-untyped]

from .processes import ServerProcess, give_up

__all__ = ["MariaDBServer", "shared_mariadb"]

HOW = "There is no MariaDB; apt-get install mariadb-server."
RUNNING_HERE = "mysql://root@127.0.0.1:3306/"
OPTIONS = (
    "--bind-address=127.0.0.1", "--skip-log-bin", "--innodb-buffer-pool-size=64M",
    "--innodb-flush-log-at-trx-commit=1", "--max-connections=200", "--skip-name-resolve",
)  # fmt: skip


def find_program(*names: str) -> str | None:
    """The first of these programs that there is, also where only root looks for them."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
    return next((found for name in names if (found := shutil.which(name, path=path))), None)


class MariaDBServer(ServerProcess):
    """A MariaDB of one's own; the user is `root`, without a password."""

    def __init__(self) -> None:
        server = find_program("mariadbd", "mysqld")
        installer = find_program("mariadb-install-db", "mysql_install_db")
        if server is None or installer is None:
            give_up(HOW)
            raise AssertionError
        self._server, self._installer = server, installer
        super().__init__("mysql")

    @property
    def url(self) -> str:
        return f"mysql://root@127.0.0.1:{self.port}/test"

    def make_data(self) -> None:
        data = self.directory / "data"
        if not data.exists():
            options = ["--no-defaults", "--auth-root-authentication-method=normal"]
            self.run(self._installer, *options, "--skip-name-resolve", f"--datadir={data}")

    def command(self) -> list[str]:
        place = [f"--datadir={self.directory / 'data'}", f"--port={self.port}"]
        place += [f"--socket={self.directory / 'socket'}"]
        place += [f"--pid-file={self.directory / 'pid'}"]
        return [self._server, "--no-defaults", *place, *OPTIONS]

    def is_ready(self) -> bool:
        return _answers(self.port)


def _answers(port: int) -> bool:
    try:
        pymysql.connect(host="127.0.0.1", port=port, user="root", connect_timeout=5).close()
    except (OSError, pymysql.MySQLError):
        return False
    return True


@cache
def shared_mariadb() -> str:
    """The URL of a MariaDB for the whole session; make databases of your own in it.

    It is `ASYNCZ_TEST_MARIADB`, or the one that runs on this machine, or one started here.
    """
    given = os.environ.get("ASYNCZ_TEST_MARIADB")
    if given is not None:
        return given
    if _answers(3306):
        return RUNNING_HERE
    server = MariaDBServer().start()
    atexit.register(server.close)
    return server.url
