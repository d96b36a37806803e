"""What the Lua scripts for runs and nodes have in common, and how a run lies on the server.

A run is a field of one hash, named by its ident: the time it was due, the task's key, a letter
for its kind. All runs are in two sorted sets, by time and by task, and those that somebody has to
see to in another, by owner; the members are ordered by their bytes. What begins with a key or an
owner begins with its length, so that no other one's members are between its own. Those of a task
that count for its `max_instances` are listed in a hash: time and kind of each.

A run that waits for its next attempt is in none of these but in `waits`, by task (its key and its
order, since another task may have its id by then) and by when it is tried again. So that nobody
has to go through thousands of one task that has no place free, each task is in `waiting` once.
"""

from __future__ import annotations

from asyncz.stores.redis_rows import TIME_LENGTH

__all__ = ["HEAD", "MORE", "NODE_HEAD", "RUN_PARTS", "TYPES"]

HEAD = 102
"""Bytes of a run's value before its owner, its followers' times and its text: state, delivery,
token (12), attempt (4), when it was claimed, started and finished (19 each), the order of its task
(18), the length of the owner (3), the number of followers (6). When it is tried again has the place
of when it was finished."""
MORE = "<I4I4I4"
"""What stands before the text if the letter of the delivery is a capital: how many claims were for
another attempt, the lengths of who has asked to cancel it and of its notes, and those two. Most
runs have none of it, so that they are as short and as fast as if there were no such thing."""
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
    "tasks": "HLEN",
    "unlucky": "ZCARD",
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
        local OPEN = {{q = true, c = true, r = true, w = true}}
        local HELD = {{c = true, r = true}}
        local CAPITALS = {{L = 'l', O = 'o'}}
        local function key_of(ident) return string.sub(ident, TIME + 1, -2) end
        local function order_of(value) return string.sub(value, 76, 93) end
        local function unit_of(ident) return string.sub(ident, 1, TIME) .. string.sub(ident, -1) end
        -- What an older release has written there since is not long enough for what it says.
        local function read_more(run, value, position)
            if #value < position + 12 then return position end
            local retries, mark, notes = struct.unpack('{MORE}', value, position + 1)
            local start = position + 12
            if #value < start + mark + notes then return position end
            run.more = {{
                retries = retries,
                mark = string.sub(value, start + 1, start + mark),
                notes = string.sub(value, start + mark + 1, start + mark + notes),
            }}
            return start + mark + notes
        end
        local function more_of(run)
            run.more = run.more or {{retries = 0, mark = '', notes = ''}}
            return run.more
        end
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
            if CAPITALS[run.delivery] then
                run.delivery = CAPITALS[run.delivery]
                followers = read_more(run, value, followers)
            end
            run.text = string.sub(value, followers + 1)
            return run
        end
        local function value_of(run)
            local delivery, text, more = run.delivery, run.text, run.more
            if more then
                delivery = string.upper(delivery)
                text = struct.pack('{MORE}', more.retries, #more.mark, #more.notes)
                    .. more.mark .. more.notes .. text
            end
            return run.state .. delivery
                .. string.format('%012d%04d', run.token, run.attempt)
                .. run.claimed .. run.started .. run.finished .. run.order
                .. string.format('%03d%06d', #run.owner, #run.followers / TIME)
                .. run.owner .. run.followers .. text
        end
        local function owned_run(ident, value, node, token)
            if not value or string.sub(value, 1, 1) == 'q' then return nil end
            local run = run_of(ident, value)
            if run.owner == node and run.token == token then return run end
        end
    """,
    # Settled runs that have not succeeded, so that they are found among those that have: each by
    # the letter of its state, and by the capital and its task.
    "unlucky": """
        local blamed, cleared = {}, {}
        local LUCKY = {s = true, q = true, c = true, r = true, w = true}
        local function blame(list, state, ident, key)
            if LUCKY[state] then return end
            if list == blamed then list[#list + 1] = '0' end
            list[#list + 1] = state .. ident
            if list == blamed then list[#list + 1] = '0' end
            list[#list + 1] = string.upper(state) .. prefix(key) .. ident
        end
        local function write_unlucky()
            send('ZREM', unlucky, cleared)
            send('ZADD', unlucky, blamed)
        end
    """,
    # With each run the record it can be run by: its own, or its task's of today.
    "record": """
        local function put_record(ident, value)
            local own = redis.call('HGET', kept, ident)
            local place = redis.call('HGET', places, key_of(ident))
            if own then
                put(string.sub(own, 1, PLACE), string.sub(own, PLACE + 1))
            elseif place and string.sub(place, TIME + 2, PLACE - 1) == order_of(value) then
                put(string.sub(place, 1, PLACE), redis.call('HGET', tasks, key_of(ident)) or '')
            else
                put('', '')
            end
        end
    """,
    # Waiting runs, and those that are to be cancelled. Who waits is nobody's.
    "waiting": """
        local comes, goes, groups, asks, unasks = {}, {}, {}, {}, {}
        local function waits_as(run)
            local group = key_of(run.ident) .. run.order
            groups[group] = true
            return prefix(group) .. run.finished .. run.ident
        end
        local function wait(run)
            comes[#comes + 1] = '0'
            comes[#comes + 1] = waits_as(run)
        end
        local function unwait(run) goes[#goes + 1] = waits_as(run) end
        local function asked_as(run)
            return prefix(run.state == 'w' and '' or run.owner) .. run.ident
        end
        local function pass_on(run, state, owner)
            local is_marked = run.more and run.more.mark ~= ''
            if is_marked then unasks[#unasks + 1] = asked_as(run) end
            run.state, run.owner = state, owner
            if is_marked and OPEN[state] then
                asks[#asks + 1] = '0'
                asks[#asks + 1] = asked_as(run)
            end
        end
        local function earliest()
            local found = {}
            for group in pairs(groups) do
                local member = redis.call('ZRANGEBYLEX', waits, first(group), last(group),
                    'LIMIT', 0, 1)[1]
                if member then
                    local start = #prefix(group) + 1
                    found[#found + 1] = string.sub(member, start, start + TIME - 1) .. group
                end
            end
            return found
        end
        -- To be called before anything else is written: it fails if something else is there.
        local function write_waiting()
            if #comes + #goes + #asks + #unasks == 0 then return end
            redis.call('ZCARD', waiting)
            redis.call('ZCARD', asked)
            local before, members = earliest(), {}
            send('ZREM', waits, goes)
            send('ZADD', waits, comes)
            for i, member in ipairs(earliest()) do
                members[2 * i - 1], members[2 * i] = '0', member
            end
            send('ZREM', waiting, before)
            send('ZADD', waiting, members)
            send('ZREM', asked, unasks)
            send('ZADD', asked, asks)
        end
    """,
    # How runs end, the head first and then those that follow it; or that they are tried again.
    "settle": """
        local written, disowned, closed, dropped, copied = {}, {}, {}, {}, {}
        local function note(run)
            written[#written + 1] = run.ident
            written[#written + 1] = value_of(run)
        end
        local function put_end(run, now, text)
            run.finished, run.text = now, text
            if run.state == 'w' then
                local time = string.sub(text, 1, TIME)
                if time ~= NEVER then run.finished = time end
                run.text = string.sub(text, TIME + 1)
                wait(run)
            else
                blame(blamed, run.state, run.ident, key_of(run.ident))
            end
            note(run)
        end
        local function leave_places(run)
            if HELD[run.state] then
                disowned[#disowned + 1] = prefix(run.owner) .. run.ident
                closed[#closed + 1] = run.ident
            elseif run.state == 'w' then
                dropped[#dropped + 1] = run.ident
                unwait(run)
            end
        end
        -- What is tried again keeps the record that it, or the one before it, has of its own.
        local function keep(run, head)
            local record = redis.call('HGET', kept, head)
            if record then
                copied[#copied + 1] = run.ident
                copied[#copied + 1] = record
            end
        end
        -- What it has noted gives way to what its worker says at its end, if that says anything.
        local function shed(run, keeps_notes)
            local more = run.more
            if not keeps_notes then more.notes = '' end
            if run.state ~= 'w' then more.mark = '' end
            if more.retries == 0 and more.mark == '' and more.notes == '' then run.more = nil end
        end
        local function settle(run, now, state, text, said, keeps_notes)
            local head, name, times = run.ident, string.sub(run.ident, TIME + 1), run.followers
            leave_places(run)
            blame(cleared, run.state, run.ident, key_of(run.ident))
            pass_on(run, state, run.owner)
            if run.more then shed(run, keeps_notes) end
            if state == 'w' then
                run.followers = ''
                keep(run, head)
            end
            put_end(run, now, text)
            run.followers, run.more = '', nil
            for position = 1, #times, TIME do
                local time = string.sub(times, position, position + TIME - 1)
                run.ident = time .. name
                run.state, text = said(time)
                if run.state == 'w' then keep(run, head) end
                if run.state then put_end(run, now, text) end
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
        local function write_ended()
            write_waiting()
            free_places()
            send('HSET', runs, written)
            send('ZREM', owned, disowned)
            send('HDEL', kept, closed)
            send('HDEL', kept, dropped)
            send('HSET', kept, copied)
            write_unlucky()
        end
    """,
}
