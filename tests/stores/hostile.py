"""Two hundred texts that mean something to a server, a script or a path, and are to be text."""

from __future__ import annotations

from itertools import product

__all__ = ["HOSTILE"]

QUOTES = ["'", '"', "`", "\\'", "''", "$$", "x'", '")', "\u02bc", "\uff07"]
ENDINGS = ["", " OR '1'='1", "; DROP TABLE asyncz_tasks", " UNION SELECT 1,2,3", " AND SLEEP(5)"]
COMMENTS = ["--", "-- -", "#", "/*"]
SQL = [
    "%", "_", "%%", "%s", "%(id)s", ":id", "?", "$1", "{0}", "{id}", "\\%", "\\", "\\\\", "\\x27",
    "1=1", "1 OR 1=1", "NULL", "null", "DEFAULT", "x'; SELECT pg_sleep(5)--", "1;SHUTDOWN",
    "/*!50000DROP TABLE asyncz_tasks*/", "CHAR(39)", "0x27", "E'\\n'", "N'x'", "U&'\\0027'",
    "asyncz_tasks", "id", "rev DESC", "id; --", "(SELECT record FROM asyncz_tasks)", "lower_id",
    "LIKE '%'", "ESCAPE", "x' ESCAPE '", "record", "information_schema.tables", "@@version",
]  # fmt: skip
REDIS = [
    "\r\nFLUSHALL\r\n", "*1\r\n$8\r\nFLUSHALL\r\n", "$-1", "KEYS[1]", "ARGV[1]",
    "]] redis.call('x')",
    "'..redis.call('FLUSHALL')..'", "os.execute('x')", "{tag}", "}{", "{}", "*", "[a-z]*", "a?c",
    "return redis.call('FLUSHALL')", "-- [[", "%c", "%1", "+inf", "-inf", "(1", "[a", "nan",
    "1e400",
]  # fmt: skip
MONGO = [
    '{"$gt": ""}', '{"$ne": null}', "$where", "$gt", "$$NOW", "$$ROOT", "$_id", "_id", "a.b", ".",
    "..", "$", "$set", "tasks.$[]", "this.record", "function(){return true}", "'; return true; //",
    '{"$regex": ".*"}', "/.*/", "^.*$", "(a+)+$", "[", "(", "*+", "\\Q", "$expr",
    '{"$function": {"body": "x"}}', '{"$oid": "0"}', "true", "0",
]  # fmt: skip
TEXT = [
    "\0", "a\0b", "\n", "\t", "\x1b[2J", "\x7f", "\u2028", "\u202e", "\ufeff", "\ufffd", "\u00a0x",
    "é", "e\u0301", "ß", "İ", "\u0131", "K", "Å", "🕐", "👩\u200d💻", "日次", "\U0010ffff",
    "x" * 255, "🕐" * 255, " ", " x", "x ", "../../etc/passwd", "/dev/null", "C:\\con", "file:x",
    "sha256:x", "<script>alert(1)</script>", "{{7*7}}", "${7*7}", "%n%n", "__class__",
    "constructor", "-1", "1e9",
]  # fmt: skip

_ATTACKS = ["".join(parts) for parts in product(QUOTES, ENDINGS, COMMENTS)]
_OTHERS = [*SQL, *REDIS, *MONGO, *TEXT]

HOSTILE = [*_OTHERS, *_ATTACKS[:: len(_ATTACKS) // (200 - len(_OTHERS)) or 1]][:200]
"""All of them differ, and each may be an id."""
