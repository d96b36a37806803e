"""The Lua scripts that change runs: claims, outcomes, take-over. See `redis_run_lua`.

States are letters: queued, claimed, running, succeeded, failed, lost, abandoned, x for cancelled,
missed, o for coalesced, k for skipped; w for those that wait for their next attempt.
"""

from __future__ import annotations

from asyncz.enums import RunState
from asyncz.stores.fates import DELETED, why_ended
from asyncz.stores.redis_rows import TIME_LENGTH

__all__ = ["RUN_BODIES"]

BUSY = "run(s) went on, as many as max_instances allows"
TOGETHER = "it was claimed together with others that had been run before"


def _lua_of(state: RunState) -> str:
    """`why_ended` as a Lua expression on a run."""
    text = why_ended(state, "<owner>", 99)
    owner = "' .. (run.owner == '' and 'of before' or run.owner) .. '"
    return "'" + text.replace("<owner>", owner).replace("99", "' .. run.attempt .. '") + "'"


RUN_BODIES: dict[str, tuple[str, str, str]] = {
    # name: keys, parts, text
    # A firing is made as a whole or not at all. What it writes is collected, and written in the
    # end by few commands.
    "fire": (
        "tasks places run_times runs by_time by_task active owned kept unlucky leases waits call",
        "once tools checks clock spans reader runs unlucky",
        f"""
        local now, node = clock(ARGV[2]), ARGV[3]
        local read, more = reader(ARGV[4])
        local firings, names, idents = {{}}, {{}}, {{}}
        while more() do
            local f, times, others = {{idents = {{}}, unrun = {{}}}}
            times, others, f.most, f.kind, f.delivery, f.fate, f.expected, f.following, f.key =
                read('<I4I4I4c1c1c1c{TIME_LENGTH}c{TIME_LENGTH}I4c0')
            local name = f.key .. f.kind
            for i = 1, times do
                f.idents[i] = read('c{TIME_LENGTH}') .. name
                idents[#idents + 1] = f.idents[i]
            end
            for i = 1, others do
                local state, time, text = read('<c1c{TIME_LENGTH}I4c0')
                f.unrun[i] = {{state, time .. f.key .. 's', text}}
                idents[#idents + 1] = f.unrun[i][2]
            end
            firings[#firings + 1] = f
            names[#names + 1] = f.key
        end
        if not redis.call('ZSCORE', leases, node) then
            return answer(string.rep('F', #firings))
        end
        local stored, going, known = values_of(places, names), values_of(active, names), {{}}
        local own = prefix(node)
        for i, value in ipairs(values_of(runs, idents)) do known[idents[i]] = value end
        local written, in_time, of_task = {{}}, {{}}, {{}}
        local claimed, mine, records = {{}}, {{}}, {{}}
        local rows, members, left, forgotten = {{}}, {{}}, {{}}, {{}}
        local entered, won = 0, 0
        local function enter(key, ident, value)
            local at, after = entered + 1, entered + 2
            written[at], written[after] = ident, value
            in_time[at], in_time[after] = '0', ident
            of_task[at], of_task[after] = '0', prefix(key) .. ident
            entered = after
        end
        local function is_there(ident, order)
            local value = known[ident]
            return value and (OPEN[string.sub(value, 1, 1)] or order_of(value) == order)
        end
        local function put(key, ident, value)
            local earlier = known[ident]
            if earlier then
                -- Of another task that had this id.
                local name = string.sub(ident, 1, -2) .. order_of(earlier)
                    .. string.upper(string.sub(ident, -1))
                enter(key, name, earlier)
                blame(cleared, string.sub(earlier, 1, 1), ident, key)
                blame(blamed, string.sub(earlier, 1, 1), name, key)
            end
            known[ident] = value
            enter(key, ident, value)
        end
        local function put_unrun(f, order, state, ident, text)
            if is_there(ident, order) then return end
            put(f.key, ident, value_of({{
                state = state, delivery = f.delivery, token = 0, attempt = 0, claimed = now,
                started = NEVER, finished = now, order = order, owner = node, followers = '',
                text = text,
            }}))
            blame(blamed, state, ident, f.key)
        end
        local function move(f, place)
            if f.fate == 'f' then
                forgotten[#forgotten + 1] = f
            elseif f.following ~= f.expected then
                local following = f.following .. string.sub(place, TIME + 1)
                rows[#rows + 1] = f.key
                rows[#rows + 1] = following
                members[#members + 1] = '0'
                members[#members + 1] = string.sub(following, 1, PLACE) .. f.key
            else
                return
            end
            left[#left + 1] = string.sub(place, 1, PLACE) .. f.key
        end
        -- What `value_of` would make of each new run, but that most of it is the same for all.
        local fresh = {{
            l = 'rl' .. string.format('%012d%04d', 1, 1) .. now .. now .. NEVER,
            o = 'co' .. string.format('%012d%04d', 1, 1) .. now .. NEVER .. NEVER,
        }}
        local owner = string.format('%03d', #node)
        local alone = owner .. '000000' .. node
        local function claim(f, order)
            local head, rest = f.idents[1], alone
            if #f.idents > 1 then
                local times = {{}}
                for i = 2, #f.idents do
                    times[i - 1] = string.sub(f.idents[i], 1, TIME)
                    put(f.key, f.idents[i], 'q' .. string.sub(head, 1, TIME))
                end
                rest = owner .. string.format('%06d', #times) .. node .. table.concat(times)
            end
            put(f.key, head, fresh[f.delivery] .. order .. rest)
            claimed[won + 1], claimed[won + 2] = f.key, f.active .. unit_of(head)
            mine[won + 1], mine[won + 2] = '0', own .. head
            won, f.claimed = won + 2, head
        end
        local function fire(f, place)
            local order, new = string.sub(place, TIME + 2, PLACE - 1), {{}}
            f.place = string.sub(place, 1, PLACE)
            move(f, place)
            for _, ident in ipairs(f.idents) do
                if not is_there(ident, order) then new[#new + 1] = ident end
            end
            for _, unrun in ipairs(f.unrun) do put_unrun(f, order, unpack(unrun)) end
            if #f.idents == 0 then return 'W' end
            if #new < #f.idents then
                for _, ident in ipairs(new) do
                    put_unrun(f, order, 'k', ident, '{{"r":"{TOGETHER}"}}')
                end
                return 'R'
            end
            if #f.active >= f.most * UNIT then
                local text = string.format('{{"n":%d,"l":"%s","r":"%d {BUSY}"}}',
                    #f.idents, string.sub(f.idents[#f.idents], 1, TIME), f.most)
                put_unrun(f, order, 'k', f.idents[1], text)
                return 'S'
            end
            claim(f, order)
            return 'W'
        end
        local said = {{}}
        for i, f in ipairs(firings) do
            local place = stored[i]
            f.active = going[i] or ''
            if f.fate == 'x' or not place or string.sub(place, 1, TIME) ~= f.expected then
                said[i] = 'L'
            elseif f.kind == 'm' and #f.active >= f.most * UNIT then
                said[i] = 'S'
            else
                said[i] = fire(f, place)
            end
        end
        local gone = {{}}
        for i, f in ipairs(forgotten) do gone[i] = f.key end
        local data = values_of(tasks, gone)
        for i, f in ipairs(forgotten) do
            local record = f.place .. (data[i] or '')
            if f.claimed then
                records[#records + 1] = f.claimed
                records[#records + 1] = record
            end
            for position = 1, #f.active, UNIT do
                local unit = string.sub(f.active, position, position + UNIT - 1)
                local ident = string.sub(unit, 1, TIME) .. f.key .. string.sub(unit, -1)
                local value = redis.call('HGET', runs, ident)
                local has_own = redis.call('HEXISTS', kept, ident) == 1
                if not has_own and order_of(value) == string.sub(f.place, TIME + 2, -2) then
                    records[#records + 1] = ident
                    records[#records + 1] = record
                end
            end
        end
        if #forgotten > 0 and redis.call('EXISTS', waits) == 1 then
            for i, f in ipairs(forgotten) do
                local group = f.key .. string.sub(f.place, TIME + 2, -2)
                local start = #prefix(group) + TIME + 1
                local found = redis.call('ZRANGEBYLEX', waits, first(group), last(group))
                for _, member in ipairs(found) do
                    local ident = string.sub(member, start)
                    if redis.call('HEXISTS', kept, ident) == 0 then
                        records[#records + 1] = ident
                        records[#records + 1] = f.place .. (data[i] or '')
                    end
                end
            end
        end
        send('ZREM', run_times, left)
        send('HDEL', places, gone)
        send('HDEL', tasks, gone)
        send('HSET', places, rows)
        send('ZADD', run_times, members)
        send('HSET', runs, written)
        send('ZADD', by_time, in_time)
        send('ZADD', by_task, of_task)
        send('HSET', active, claimed)
        send('ZADD', owned, mine)
        send('HSET', kept, records)
        write_unlucky()
        return answer(table.concat(said))
        """,
    ),
    "start": (
        "runs",
        "tools clock reader runs",
        """
        local now, node, said = clock(ARGV[1]), ARGV[2], {}
        local read, more = reader(ARGV[3])
        while more() do
            local token, ident = read('<c12I4c0')
            local value = redis.call('HGET', runs, ident)
            local run = owned_run(ident, value, node, tonumber(token))
            said[#said + 1] = run and HELD[run.state] and '1' or '0'
            if run and run.state == 'c' then
                run.state, run.started = 'r', now
                redis.call('HSET', runs, ident, value_of(run))
            end
        end
        return table.concat(said)
        """,
    ),
    "finish": (
        "runs active owned kept unlucky waits waiting asked",
        "tools checks clock spans reader runs unlucky waiting settle",
        """
        local now, node, said = clock(ARGV[1]), ARGV[2], {}
        local read, more = reader(ARGV[3])
        local ends, idents, others = {}, {}
        while more() do
            local found = {outcomes = {}}
            others, found.token, found.state, idents[#idents + 1], found.text =
                read('<I4c12c1I4c0I4c0')
            for i = 1, others do
                local time, state, text = read('<c' .. TIME .. 'c1I4c0')
                found.outcomes[time] = {state, text}
            end
            ends[#ends + 1] = found
        end
        -- Of nearly all runs it is enough to replace state and time: nothing else is known of them.
        local plain = {cl = true, co = true, rl = true, ro = true}
        local alone, own = string.format('%03d%06d', #node, 0) .. node, prefix(node)
        local size = HEAD + #node
        local function is_plain(found, value)
            return value and plain[string.sub(value, 1, 2)] and found.state ~= 'w'
                and string.sub(value, 94, size) == alone and string.sub(value, 3, 14) == found.token
        end
        for i, value in ipairs(values_of(runs, idents)) do
            local found, ident = ends[i], idents[i]
            local run = not is_plain(found, value)
                and owned_run(ident, value, node, tonumber(found.token))
            said[i] = run == false and '1' or '0'
            if run == false then
                disowned[#disowned + 1] = own .. ident
                closed[#closed + 1] = ident
                written[#written + 1] = ident
                written[#written + 1] = found.state .. string.sub(value, 2, 56) .. now
                    .. string.sub(value, 76, size) .. found.text
                blame(blamed, found.state, ident, key_of(ident))
            elseif run and (HELD[run.state] or run.state == 'l') then
                said[i] = '1'
                local said_of = found.outcomes
                local left_out = run.state ~= 'l' and {'x', ''}
                settle(run, now, found.state, found.text, function(time)
                    return unpack(said_of[time] or left_out or {})
                end)
            elseif run and run.state == found.state then
                said[i] = '1'
            elseif run and run.state == 'x' and found.state == 'w' then
                -- It was said before, and the run was cancelled since.
                said[i] = '1'
            end
        end
        write_ended()
        return table.concat(said)
        """,
    ),
    "release": (
        "runs owned waits waiting asked",
        "tools checks clock spans reader runs waiting",
        """
        local node = ARGV[1]
        local read, more = reader(ARGV[2])
        local written, mine, free = {}, {}, {}
        while more() do
            local token, ident = read('<c12I4c0')
            local value = redis.call('HGET', runs, ident)
            local run = owned_run(ident, value, node, tonumber(token))
            if run and HELD[run.state] then
                pass_on(run, 'c', '')
                run.started = NEVER
                run.attempt = math.max(0, run.attempt - 1)
                written[#written + 1] = ident
                written[#written + 1] = value_of(run)
                mine[#mine + 1] = prefix(node) .. ident
                free[#free + 1] = '0'
                free[#free + 1] = prefix('') .. ident
            end
        end
        write_waiting()
        send('HSET', runs, written)
        send('ZREM', owned, mine)
        send('ZADD', owned, free)
        return ''
        """,
    ),
    "take": (
        "runs active owned kept unlucky leases waits waiting asked call",
        "once tools checks clock spans reader runs unlucky waiting settle",
        f"""
        local now, node, most = clock(ARGV[2]), ARGV[3], tonumber(ARGV[4])
        local read, more = reader(ARGV[5])
        local is_alive, said, mine = redis.call('ZSCORE', leases, node), {{}}, {{}}
        local function fate(run, task)
            if run.delivery == 'o' and run.state == 'r' then
                return 'l', cjson.encode({{r = {_lua_of(RunState.LOST)}}})
            end
            if run.attempt >= most then
                return 'a', cjson.encode({{r = {_lua_of(RunState.ABANDONED)}}})
            end
            if task == 'g' then return 'x', '{{"r":"{DELETED}"}}' end
            return task == 't' and 't' or '0', ''
        end
        local function take(run)
            disowned[#disowned + 1] = prefix(run.owner) .. run.ident
            mine[#mine + 1] = '0'
            mine[#mine + 1] = prefix(node) .. run.ident
            run.token, run.attempt = run.token + 1, run.attempt + 1
            pass_on(run, run.delivery == 'o' and run.state or 'r', node)
            if run.delivery ~= 'o' then run.started = now end
            note(run)
        end
        while more() do
            local token, task, ident = read('<c12c1I4c0')
            local value = is_alive and redis.call('HGET', runs, ident)
            local run = value and HELD[string.sub(value, 1, 1)] and run_of(ident, value)
            local what, text = '0', ''
            if run and run.token == tonumber(token)
                and not redis.call('ZSCORE', leases, run.owner) then
                what, text = fate(run, task)
            end
            if what == 't' then
                take(run)
            elseif what ~= '0' then
                settle(run, now, what, text, function() return what, text end, true)
            end
            said[#said + 1] = what
        end
        write_ended()
        send('ZADD', owned, mine)
        return answer(table.concat(said))
        """,
    ),
}
