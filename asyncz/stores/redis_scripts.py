"""The Lua scripts of the Redis store: each is one atomic change, or one look, on the server.

A script names no key by itself: all come in as KEYS. It looks at everything it needs before its
first write, because what a script has written stays when it fails.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha1

from asyncz.stores.redis_attempt_scripts import ATTEMPT_BODIES
from asyncz.stores.redis_ledger_scripts import LEDGER_BODIES
from asyncz.stores.redis_look_scripts import LOOK_BODIES
from asyncz.stores.redis_lua import PARTS
from asyncz.stores.redis_node_scripts import NODE_BODIES
from asyncz.stores.redis_run_lua import RUN_PARTS, TYPES
from asyncz.stores.redis_run_scripts import RUN_BODIES

__all__ = ["Script", "scripts"]


@dataclass(frozen=True)
class Script:
    """A script and the names of the keys it is given.

    Args:
        keys: Names of `RedisKeys`, or `call` and `batch`, which differ from call to call.
        text: In Lua.
        once: Whether it changes something, so that a repetition must not do it again.
        sha: What the server knows it by.
    """

    keys: tuple[str, ...]
    text: str
    once: bool
    sha: str


BODIES: dict[str, tuple[str, str, str]] = {
    # name: keys, parts, text
    "open": (
        "meta tasks places run_times run_times_of",
        "",
        """
        local types = {hash = {meta, tasks, places}, zset = {run_times}, string = {run_times_of}}
        for wanted, keys in pairs(types) do
            for _, key in ipairs(keys) do
                local found = redis.call('TYPE', key).ok
                if found ~= wanted and found ~= 'none' then return {'type', key, found} end
            end
        end
        local version = redis.call('HGET', meta, 'version')
        -- What was written by layout 1 is as it is in 2, which has more beside it.
        if version and version ~= ARGV[1] and version ~= '1' then
            return {'version', meta, version}
        end
        if not version and redis.call('EXISTS', tasks, places, run_times) > 0 then
            return {'foreign', tasks, ''}
        end
        local owner = redis.call('GET', run_times_of)
        if owner and owner ~= tasks then return {'shared', run_times, owner} end
        local times = redis.call('HGET', meta, 'run_times')
        if times and times ~= run_times then return {'shared', tasks, times} end
        -- What an older release writes is not in all the places that this one looks at.
        if not version then redis.call('HSET', meta, 'unlucky', 'all') end
        redis.call('HSET', meta, 'version', ARGV[1], 'run_times', run_times)
        redis.call('SET', run_times_of, tasks)
        return {'good', '', ''}
        """,
    ),
    "server": (
        "meta",
        "",
        """
        local texts = {}
        for i, part in ipairs({'server', 'persistence', 'memory'}) do
            local text = redis.pcall('INFO', part)
            texts[i] = type(text) == 'string' and text or ''
        end
        return texts
        """,
    ),
    "insert": (
        "tasks places run_times claims batches call",
        "once types tools rows taken write",
        """
        local keys = keys_of(ARGV[2])
        local key, broken = taken(keys)
        if key then return '!' .. key end
        break_batches(broken)
        if #broken > 0 then send('HDEL', claims, keys) end
        write(ARGV[2])
        return answer('')
        """,
    ),
    "replace": (
        "tasks places run_times call",
        "once types tools",
        """
        local key, time, data, summary, expected = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
        local before = redis.call('HGET', places, key)
        if not before then return '0' end
        if expected ~= '' and string.sub(before, 1, TIME) ~= expected then return '0' end
        local place = time .. string.sub(before, TIME + 1, PLACE)
        redis.call('ZREM', run_times, string.sub(before, 1, PLACE) .. key)
        redis.call('ZADD', run_times, 0, place .. key)
        redis.call('HSET', places, key, place .. summary)
        redis.call('HSET', tasks, key, data)
        return answer('1')
        """,
    ),
    "remove": (
        "tasks places run_times call",
        "once types tools",
        """
        local keys, members, there, gone = {}, {}, {}, 0
        for i = 2, #ARGV do keys[i - 1] = ARGV[i] end
        local found = values_of(places, keys)
        for i, key in ipairs(keys) do
            if found[i] then members[#members + 1] = string.sub(found[i], 1, PLACE) .. key end
            if found[i] or redis.call('HEXISTS', tasks, key) == 1 then there[#there + 1] = key end
        end
        if #there == 0 then return '0' end
        send('ZREM', run_times, members)
        send('HDEL', places, there)
        send('HDEL', tasks, there)
        return answer(tostring(#there))
        """,
    ),
    "set_aside": (
        "tasks places run_times unreadable call",
        "once types tools",
        """
        local key, place, data = ARGV[2], ARGV[3], ARGV[4]
        redis.call('HLEN', unreadable)
        local found = redis.call('HGET', places, key) or place
        if string.sub(found, 1, PLACE) ~= place then return '0' end
        if (redis.call('HGET', tasks, key) or '') ~= data then return '0' end
        local number = 1
        while redis.call('HSETNX', unreadable, key .. '.unreadable-' .. number, data) == 0 do
            number = number + 1
        end
        redis.call('ZREM', run_times, place .. key)
        redis.call('HDEL', places, key)
        redis.call('HDEL', tasks, key)
        return answer('1')
        """,
    ),
    "advance": (
        "tasks places run_times call",
        "once types tools",
        """
        local packed, position = ARGV[2], 1
        local keys, expected, following = {}, {}, {}
        while position <= #packed do
            local length, start = struct.unpack('<I4', packed, position)
            local stop = start + length
            keys[#keys + 1] = string.sub(packed, start, stop - 1)
            expected[#keys] = string.sub(packed, stop, stop + TIME - 1)
            following[#keys] = string.sub(packed, stop + TIME, stop + TIME + TIME - 1)
            position = stop + TIME + TIME
        end
        local stored, now, changed = values_of(places, keys), {}, {}
        local made, left, gone = {}, {}, {}
        for i, key in ipairs(keys) do
            local place = now[key]
            if place == nil then place = stored[i] end
            made[i] = '0'
            if place and string.sub(place, 1, TIME) == expected[i] then
                made[i] = '1'
                if now[key] == nil then changed[#changed + 1] = key end
                left[#left + 1] = string.sub(place, 1, PLACE) .. key
                now[key] = false
                if string.sub(following[i], 1, 1) ~= ' ' then
                    now[key] = following[i] .. string.sub(place, TIME + 1)
                end
            end
        end
        if #changed == 0 then return table.concat(made) end
        local rows, members = {}, {}
        for _, key in ipairs(changed) do
            local place = now[key]
            if place then
                rows[#rows + 1] = key
                rows[#rows + 1] = place
                members[#members + 1] = 0
                members[#members + 1] = string.sub(place, 1, PLACE) .. key
            else
                gone[#gone + 1] = key
            end
        end
        send('ZREM', run_times, left)
        send('HDEL', places, gone)
        send('HDEL', tasks, gone)
        send('HSET', places, rows)
        send('ZADD', run_times, members)
        return answer(table.concat(made))
        """,
    ),
    "walk": (
        "places run_times",
        "tools pairs",
        """
        local found = redis.call(ARGV[1], run_times, ARGV[2], ARGV[3], 'LIMIT', 0, ARGV[4])
        local keys = {}
        for i, member in ipairs(found) do keys[i] = string.sub(member, PLACE + 1) end
        local stored = values_of(places, keys)
        for i, member in ipairs(found) do
            put(member, stored[i] and string.sub(stored[i], PLACE + 1) or '')
        end
        return table.concat(out)
        """,
    ),
    "places": (
        "places",
        "tools",
        """
        local out = {}
        for i, place in pairs(values_of(places, ARGV)) do
            out[#out + 1] = place and string.sub(place, 1, TIME) or nil
        end
        return out
        """,
    ),
    "count": (
        "run_times",
        "",
        """
        return {
            redis.call('ZLEXCOUNT', run_times, '-', '(p'),
            redis.call('ZLEXCOUNT', run_times, '[p', '+'),
        }
        """,
    ),
    # Large additions: see `redis_batches`.
    "claim": (
        "tasks places run_times claims batches batch call",
        "once types tools rows taken",
        """
        local id, number, packed = ARGV[2], ARGV[3], ARGV[4]
        redis.call('HLEN', batch)
        local state = redis.call('HGET', batches, id)
        if state and string.sub(state, 1, 4) ~= 'open' then return '!' .. string.sub(state, 18) end
        local keys = keys_of(packed)
        local key, broken = taken(keys, id)
        if key then return '!' .. key end
        break_batches(broken)
        local claimed = {}
        for _, key in ipairs(keys) do
            claimed[#claimed + 1] = key
            claimed[#claimed + 1] = id
        end
        local now = string.format('%010d', redis.call('TIME')[1])
        redis.call('HSET', batches, id, 'open:' .. now)
        redis.call('HSET', batch, number, packed)
        send('HSET', claims, claimed)
        return answer('')
        """,
    ),
    "commit": (
        "batches batch call",
        "once",
        """
        local state = redis.call('HGET', batches, ARGV[2]) or 'none'
        if string.sub(state, 1, 6) == 'broken' then return '!' .. string.sub(state, 18) end
        if string.sub(state, 1, 4) ~= 'open' then return '?' end
        if redis.call('HLEN', batch) ~= tonumber(ARGV[3]) then return '?' end
        redis.call('HSET', batches, ARGV[2], 'kept')
        return answer('')
        """,
    ),
    "publish": (
        "tasks places run_times claims batches batch",
        "types tools rows write",
        """
        if redis.call('HGET', batches, ARGV[1]) ~= 'kept' then return 0 end
        local packed = redis.call('HGET', batch, ARGV[2])
        if packed then
            redis.call('HLEN', claims)
            write(packed)
            send('HDEL', claims, keys_of(packed))
            redis.call('HDEL', batch, ARGV[2])
        end
        local left = redis.call('HLEN', batch)
        if left == 0 then redis.call('HDEL', batches, ARGV[1]) end
        return left
        """,
    ),
    "drop": (
        "claims batches batch",
        "tools rows",
        """
        local id = ARGV[1]
        local state = redis.call('HGET', batches, id)
        if state == 'kept' then return 0 end
        local packed = redis.call('HGET', batch, ARGV[2])
        if packed then
            local keys, own = keys_of(packed), {}
            local owners = values_of(claims, keys)
            for i, key in ipairs(keys) do
                if owners[i] == id then own[#own + 1] = key end
            end
            send('HDEL', claims, own)
            redis.call('HDEL', batch, ARGV[2])
        end
        local left = redis.call('HLEN', batch)
        if left == 0 then redis.call('HDEL', batches, id) end
        return left
        """,
    ),
    "batches": (
        "batches",
        "",
        """
        return {redis.call('HGETALL', batches), redis.call('TIME')[1]}
        """,
    ),
    "parts": (
        "batch",
        "",
        """
        return redis.call('HKEYS', batch)
        """,
    ),
}


def _made(keys: list[str], parts: list[str], text: str) -> Script:
    known = PARTS | RUN_PARTS | {"checks": _checks(keys)}
    head = f"local {', '.join(keys)} = unpack(KEYS)\n"
    body = head + "".join(known[part] for part in parts) + text
    text = "\n".join(line.strip() for line in body.splitlines() if line.strip())
    # The name the server's protocol gives it; nothing is kept safe by it.
    sha = sha1(text.encode(), usedforsecurity=False).hexdigest()
    return Script(tuple(keys), text, "once" in parts, sha)


def _checks(keys: list[str]) -> str:
    """What fails if somebody put another type there, while nothing has been written yet."""
    return "".join(f"redis.call('{TYPES[key]}', {key})\n" for key in keys if key in TYPES)


_ALL = BODIES | LOOK_BODIES | RUN_BODIES | ATTEMPT_BODIES | LEDGER_BODIES | NODE_BODIES
scripts: dict[str, Script] = {
    name: _made(keys.split(), parts.split(), text) for name, (keys, parts, text) in _ALL.items()
}
"""By name."""
