"""What a Redis store asks of its server before it trusts tasks to it."""

from __future__ import annotations

from collections.abc import Mapping
from logging import Logger

from asyncz.exceptions import StoreError, StoreFormatError
from asyncz.stores.redis_calls import RedisCalls

__all__ = ["check_durability", "open_keys"]

LAYOUT = 2
"""The version of how the keys are used. A release that knows 1 only would take the notes of a run
for its text, and stumble over those that wait."""
OLDEST = (6, 2)

REFUSALS = {
    "type": "the key {key!r} is a {found}: something else is using it; choose other keys",
    "foreign": "there is data under {key!r} that is not of this store; choose another tasks_key",
    "shared": "{key!r} is in use together with {found!r}; give each store two keys of its own",
    "version": (
        "the tasks under {key!r} have the layout {found}, and this release of asyncz knows "
        f"{LAYOUT}; upgrade asyncz"
    ),
}

NO_LOG = (
    "it keeps no append-only file (appendonly no): what was added, changed or run since its last "
    "snapshot is lost or undone when it stops, and runs may then be repeated; set 'appendonly yes'"
)
EVICTS = (
    "it may throw away data when its memory is full (maxmemory-policy {policy}), and tasks with "
    "it; set 'maxmemory-policy noeviction'"
)
NEVER_SYNCS = (
    "it leaves it to the system when to write its append-only file (appendfsync no): some 30 "
    "seconds are lost with the power; set 'appendfsync everysec' or 'always'"
)
UNKNOWN = "it does not say whether it keeps an append-only file (INFO is not allowed)"


async def open_keys(calls: RedisCalls) -> None:
    """Make the keys of a store, or recognise them.

    Raises:
        StoreFormatError: They are not its own, or of a newer release.
    """
    verdict, key, found = (part.decode(errors="replace") for part in await calls("open", LAYOUT))
    if verdict in REFUSALS:
        text = REFUSALS[verdict].format(key=key, found=found)
        raise StoreFormatError(f"The store {calls.alias!r} cannot be opened: {text}.")


async def check_durability(
    calls: RedisCalls, required: bool, logger: Logger, is_cluster: bool = False
) -> None:
    """Warn of what the server may lose.

    Args:
        calls: To the server.
        required: Refuse to start instead.
        logger: For the warnings.
        is_cluster: Whether there are several servers; then only the one with the keys is asked,
            and not when it writes its file.

    Raises:
        StoreError: It may lose something, or does not say, and `required` is true; or its
            release is too old.
    """
    texts = [text.decode(errors="replace") for text in await calls("server")]
    facts = dict(line.split(":", 1) for text in texts for line in text.split() if ":" in line)
    _check_release(calls.alias, facts)
    problems = _problems(facts)
    has_log = facts.get("aof_enabled") == "1" and not is_cluster
    if has_log and await _sync_policy(calls, logger) == "no":
        problems.append(NEVER_SYNCS)
    if not facts:
        logger.debug("The Redis server of the store %r: %s.", calls.alias, UNKNOWN)
        problems += [UNKNOWN] if required else []
    if problems and required:
        raise StoreError(
            f"The Redis server of the store {calls.alias!r} is not durable, and require_durable "
            f"is set: {'; '.join(problems)}."
        )
    for problem in problems:
        logger.warning("The Redis server of the store %r: %s.", calls.alias, problem)


def _problems(facts: Mapping[str, str]) -> list[str]:
    problems = []
    if facts.get("aof_enabled", "1") != "1":
        problems.append(NO_LOG)
    policy = facts.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        problems.append(EVICTS.format(policy=policy))
    return problems


def _check_release(alias: str, facts: Mapping[str, str]) -> None:
    release = facts.get("redis_version", "")
    numbers = tuple(int(part) for part in release.split(".")[:2] if part.isdigit())
    if numbers and numbers < OLDEST:
        raise StoreFormatError(
            f"The Redis server of the store {alias!r} is {release}; it must be 6.2 or newer."
        )


async def _sync_policy(calls: RedisCalls, logger: Logger) -> str | None:
    try:
        found = await calls.command("CONFIG", "GET", "appendfsync")
    except StoreError as exc:
        # Usual where the server is somebody's service.
        logger.debug("The store %r cannot ask for appendfsync: %s", calls.alias, exc)
        return None
    values = found.values() if isinstance(found, dict) else found[1:2]
    return next((v.decode() if isinstance(v, bytes) else str(v) for v in values), None)
