"""What time it is in a database: its server's clock, unless the scheduler has one of its own."""

from __future__ import annotations

from sqlalchemy import BigInteger, ColumnElement, Connection, literal, literal_column, select

from asyncz.clock import Clock, SystemClock
from asyncz.serializers.json import to_microseconds
from asyncz.stores.sqlalchemy_schema import family_of

__all__ = ["NOW", "StoreTime"]

NOW = {
    # Not clock_timestamp(), which goes on within a statement, nor now(), which stands still in a
    # transaction.
    "postgresql": "CAST(EXTRACT(EPOCH FROM statement_timestamp()) * 1000000 AS BIGINT)",
    # Not UNIX_TIMESTAMP(NOW(6)), which is ambiguous for an hour in a zone with summer time.
    "mysql": "TIMESTAMPDIFF(MICROSECOND, '1970-01-01 00:00:00', UTC_TIMESTAMP(6))",
}
"""Microseconds since the epoch by the clock of a server. SQLite has none but its host's."""


class StoreTime:
    """The time of one store, in microseconds since the epoch.

    Args:
        clock: The scheduler's. If it is the system's, that of the server counts instead.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.is_real = isinstance(clock, SystemClock)

    def given(self, connection: Connection) -> int | None:
        """The time, if the server is not the one to ask."""
        if self.is_real and family_of(connection.dialect) in NOW:
            return None
        return to_microseconds(self._clock.now())

    def expression(self, connection: Connection) -> ColumnElement[int]:
        """The time, for use in a statement."""
        given = self.given(connection)
        if given is None:
            return literal_column(NOW[family_of(connection.dialect)], BigInteger)
        return literal(given, BigInteger)

    def read(self, connection: Connection) -> int:
        """The time, asked for."""
        given = self.given(connection)
        if given is None:
            given = connection.execute(select(self.expression(connection))).scalar_one()
        return given
