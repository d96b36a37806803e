"""What the Lua scripts for runs and nodes have in common, and how a run lies on the server.

A run is a field of one hash, named by its ident: the time it was due, the task's key, a letter
for its kind. All runs are in two sorted sets, by time and by task, and open ones in another, by
owner; the members are ordered by their bytes. What begins with a key or an owner begins with its
length, so that no other one's members are between its own. Those of a task that count for its
`max_instances` are listed in a hash: time and kind of each.
"""

from __future__ import annotations

from asyncz.stores.redis_rows import TIME_LENGTH

__all__ = ["HEAD", "NODE_HEAD", "RUN_PARTS", "TYPES"]

HEAD = 102
"""Bytes of a run's value before its owner, its followers' times and its text: state, delivery,
token (12), attempt (4), when it was claimed, started and finished (19 each), the order of its task
(18), the length of the owner (3), the number of followers (6)."""
NODE_HEAD = 76
"""Bytes of a node's value before what it says of itself: state, number (10), when it joined, when
it was heard of, until when its lease is (19 each), how many runs go on there (8)."""

TYPES = {
    "active": "HLEN",
    "by_task": "ZCARD",
    "by_time": "ZCARD",
    "gone": "ZCARD",
    "kept": "HLEN",
    "leases": "ZCARD",
    "nodes": "HLEN",
    "owned": "ZCARD",
    "places": "HLEN",
    "run_times": "ZCARD",
    "runs": "HLEN",
    "settled": "LLEN",
    "tasks": "HLEN",
}
"""For each key a command that fails if something else is there, to be asked before a write."""

RUN_PARTS = {
    # Times are compared as numbers: how a server compares texts depends on its locale.
    "clock": f"""
        local NEVER = string.rep(' ', {TIME_LENGTH})
        local function number_of(time)
            if string.sub(time, 1, 1) == '-' then return tonumber(string.sub(time, 2)) - 1e18 end
            return tonumber(time)
        end
        local function time_of(number)
            if number < 0 then return '-' .. string.format('%018.0f', number + 1e18) end
            return string.format('%019.0f', number)
        end
        local function clock(given)
            if given ~= '' then return given end
            local time = redis.call('TIME')
            return time_of(time[1] * 1000000 + time[2])
        end
    """,
    "spans": """
        local function prefix(text) return string.format('%08d', #text) .. text end
        local function first(text) return '[' .. prefix(text) end
        local function last(text) return '(' .. prefix(text) .. '\\255' end
    """,
    # Of what is packed for a script: one after the other, as `struct` says.
    "reader": """
        local function reader(packed)
            local position = 1
            local function moved(...)
                position = select(select('#', ...), ...)
                return ...
            end
            local function read(layout) return moved(struct.unpack(layout, packed, position)) end
            local function more() return position <= #packed end
            return read, more
        end
    """,
    "runs": f"""
        local HEAD, UNIT = {HEAD}, TIME + 1
        local OPEN = {{q = true, c = true, r = true}}
        local function key_of(ident) return string.sub(ident, TIME + 1, -2) end
        local function order_of(value) return string.sub(value, 76, 93) end
        local function unit_of(ident) return string.sub(ident, 1, TIME) .. string.sub(ident, -1) end
        local function run_of(ident, value)
            local run, token, attempt, owner, followers = {{ident = ident}}
            run.state, run.delivery, token, attempt, run.claimed, run.started, run.finished,
                run.order, owner, followers =
                struct.unpack('c1c1c12c4c19c19c19c18c3c6', value)
            owner = HEAD + owner
            followers = owner + TIME * followers
            run.token, run.attempt = tonumber(token), tonumber(attempt)
            run.owner = string.sub(value, HEAD + 1, owner)
            run.followers = string.sub(value, owner + 1, followers)
            run.text = string.sub(value, followers + 1)
            return run
        end
        local function value_of(run)
            return run.state .. run.delivery
                .. string.format('%012d%04d', run.token, run.attempt)
                .. run.claimed .. run.started .. run.finished .. run.order
                .. string.format('%03d%06d', #run.owner, #run.followers / TIME)
                .. run.owner .. run.followers .. run.text
        end
        local function owned_run(ident, value, node, token)
            if not value or string.sub(value, 1, 1) == 'q' then return nil end
            local run = run_of(ident, value)
            if run.owner == node and run.token == token then return run end
        end
    """,
    # How runs end, the head first and then those that follow it.
    "settle": """
        local written, disowned, closed, entries = {}, {}, {}, {}
        local function note(run)
            written[#written + 1] = run.ident
            written[#written + 1] = value_of(run)
            entries[#entries + 1] = run.finished .. run.ident
        end
        local function settle(run, now, state, text, said)
            if OPEN[run.state] then
                disowned[#disowned + 1] = prefix(run.owner) .. run.ident
                closed[#closed + 1] = run.ident
            end
            local name, times = string.sub(run.ident, TIME + 1), run.followers
            run.finished, run.state, run.text = now, state, text
            note(run)
            run.followers = ''
            for position = 1, #times, TIME do
                local time = string.sub(times, position, position + TIME - 1)
                run.ident = time .. name
                run.state, run.text = said(time)
                if run.state then note(run) end
            end
        end
        local function without(units, unit)
            for position = 1, #units, UNIT do
                if string.sub(units, position, position + UNIT - 1) == unit then
                    return string.sub(units, 1, position - 1) .. string.sub(units, position + UNIT)
                end
            end
            return units
        end
        local function free_places()
            local keys, left, busy, idle = {}, {}, {}, {}
            for i, ident in ipairs(closed) do keys[i] = key_of(ident) end
            for i, units in ipairs(values_of(active, keys)) do left[keys[i]] = units or '' end
            for i, ident in ipairs(closed) do
                left[keys[i]] = without(left[keys[i]], unit_of(ident))
            end
            for key, units in pairs(left) do
                if units == '' then
                    idle[#idle + 1] = key
                else
                    busy[#busy + 1] = key
                    busy[#busy + 1] = units
                end
            end
            send('HSET', active, busy)
            send('HDEL', active, idle)
        end
        local function write_settled()
            free_places()
            send('HSET', runs, written)
            send('ZREM', owned, disowned)
            send('HDEL', kept, closed)
            send('RPUSH', settled, entries)
        end
    """,
}
