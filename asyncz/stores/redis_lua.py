"""What the Lua scripts of the Redis store have in common."""

from __future__ import annotations

from asyncz.stores.redis_rows import PLACE_LENGTH, TIME_LENGTH

__all__ = ["PARTS"]

REMEMBERED = 3600
"""Seconds for which the server knows the answer to a call, longer than any repetition of it."""

PARTS = {
    # A call is repeated when its answer was lost: it then gets the answer it had.
    "once": f"""
        local token = ARGV[1]
        local answered = redis.call('GET', call)
        if answered and string.sub(answered, 1, #token) == token then
            return string.sub(answered, #token + 1)
        end
        local function answer(value)
            redis.call('SET', call, token .. value, 'EX', {REMEMBERED})
            return value
        end
    """,
    # These fail if somebody put another type there, while nothing has been written yet.
    "types": """
        redis.call('HLEN', tasks) redis.call('HLEN', places) redis.call('ZCARD', run_times)
    """,
    "tools": f"""
        local PLACE, TIME, MOST = {PLACE_LENGTH}, {TIME_LENGTH}, 1000
        local function in_parts(list, use)
            for first = 1, #list, MOST do
                use(first, math.min(first + MOST - 1, #list))
            end
        end
        local function send(command, key, list)
            in_parts(list, function(first, last)
                redis.call(command, key, unpack(list, first, last))
            end)
        end
        local function values_of(key, fields)
            local found = {{}}
            in_parts(fields, function(first, last)
                for i, value in ipairs(redis.call('HMGET', key, unpack(fields, first, last))) do
                    found[first + i - 1] = value
                end
            end)
            return found
        end
    """,
    "rows": """
        local function each_row(packed, use)
            local position = 1
            while position <= #packed do
                local key, place, data, start = struct.unpack('<I4I4I4', packed, position)
                use(start, key, place, data)
                position = start + key + place + data
            end
        end
        local function keys_of(packed)
            local keys = {}
            each_row(packed, function(start, key)
                keys[#keys + 1] = string.sub(packed, start, start + key - 1)
            end)
            return keys
        end
    """,
    "taken": """
        local function taken(keys, batch)
            for _, kept in ipairs({places, tasks}) do
                local found = values_of(kept, keys)
                for i, key in ipairs(keys) do if found[i] then return key end end
            end
            local broken = {}
            if redis.call('EXISTS', claims) == 1 then
                local owners = values_of(claims, keys)
                for i, key in ipairs(keys) do
                    local owner = owners[i]
                    local state = owner and owner ~= batch and redis.call('HGET', batches, owner)
                    if state == 'kept' then return key end
                    if state then broken[#broken + 1] = {owner, state, key} end
                end
            end
            return nil, broken
        end
        local function break_batches(broken)
            for _, found in ipairs(broken) do
                local owner, state, key = unpack(found)
                if string.sub(state, 1, 4) == 'open' then
                    redis.call('HSET', batches, owner, 'broken' .. string.sub(state, 5, 15) .. key)
                end
            end
        end
    """,
    "write": """
        local function write(packed)
            local records, rows, members = {}, {}, {}
            each_row(packed, function(start, key, place, data)
                local name = string.sub(packed, start, start + key - 1)
                start = start + key
                rows[#rows + 1] = name
                rows[#rows + 1] = string.sub(packed, start, start + place - 1)
                members[#members + 1] = 0
                members[#members + 1] = string.sub(packed, start, start + PLACE - 1) .. name
                start = start + place
                records[#records + 1] = name
                records[#records + 1] = string.sub(packed, start, start + data - 1)
            end)
            send('HSET', tasks, records)
            send('HSET', places, rows)
            send('ZADD', run_times, members)
        end
    """,
    "pairs": """
        local out, size = {}, 0
        local function put(member, value)
            out[#out + 1] = struct.pack('<I4I4', #member, #value)
            out[#out + 1] = member
            out[#out + 1] = value
            size = size + #member + #value
        end
    """,
}
