"""The Lua scripts for runs on their way: tried again, cancelled, with notes; and for histories that
are kept short. See `redis_run_lua`.
"""

from __future__ import annotations

from asyncz.stores.fates import DELETED
from asyncz.stores.redis_rows import TIME_LENGTH

__all__ = ["ATTEMPT_BODIES"]

BEHIND = "the run that it waited behind was cancelled"
ORDER = 18
"""Letters of a task's order, which stands behind its key in the name of its waiting runs."""

ATTEMPT_BODIES: dict[str, tuple[str, str, str]] = {
    # name: keys, parts, text
    # Of each task of which a run is due again: the first of them, how many there are, and how many
    # go on. Who looks knows then how many to ask for.
    "due_again": (
        "waiting waits active runs kept places tasks",
        "tools clock spans runs pairs record",
        f"""
        local now, limit = clock(ARGV[1]), tonumber(ARGV[3])
        local stop = '(' .. time_of(number_of(now) + 1)
        local from = ARGV[2] == '' and '-' or '(' .. ARGV[2]
        local found = redis.call('ZRANGEBYLEX', waiting, from, stop, 'LIMIT', 0, limit)
        local used = 0
        for i, member in ipairs(found) do
            if size > tonumber(ARGV[4]) then break end
            used = i
            local group = string.sub(member, TIME + 1)
            local start, stop_here = #prefix(group) + TIME + 1, '(' .. prefix(group)
                .. string.sub(stop, 2)
            local due = redis.call('ZRANGEBYLEX', waits, first(group), stop_here, 'LIMIT', 0, 1)[1]
            local ident = due and string.sub(due, start)
            local value = ident and redis.call('HGET', runs, ident)
            if value then
                local units = redis.call('HGET', active, string.sub(group, 1, -{ORDER + 1})) or ''
                local count = redis.call('ZLEXCOUNT', waits, first(group), stop_here)
                put(group, struct.pack('<I4I4', #units / UNIT, count))
                put(ident, value)
                put_record(ident, value)
            end
        end
        local more = used < #found or #found == limit
        return {{more and found[used] or '', table.concat(out)}}
        """,
    ),
    "due_of": (
        "waits runs kept places tasks",
        "tools clock spans runs pairs record",
        """
        local group, stop = ARGV[2], time_of(number_of(clock(ARGV[1])) + 1)
        local start = #prefix(group) + TIME + 1
        local found = redis.call('ZRANGEBYLEX', waits, first(group), '(' .. prefix(group) .. stop,
            'LIMIT', 0, tonumber(ARGV[3]))
        for _, member in ipairs(found) do
            if size > tonumber(ARGV[4]) then break end
            local ident = string.sub(member, start)
            local value = redis.call('HGET', runs, ident)
            if value then
                put(ident, value)
                put_record(ident, value)
            end
        end
        return table.concat(out)
        """,
    ),
    "attend": (
        "runs active owned kept unlucky leases waits waiting asked call",
        "once tools checks clock spans reader runs unlucky waiting settle",
        f"""
        local now, node = clock(ARGV[2]), ARGV[3]
        local read, more = reader(ARGV[4])
        local is_alive, going, mine, said = redis.call('ZSCORE', leases, node), {{}}, {{}}, {{}}
        local function attend(run)
            unwait(run)
            run.token, run.finished = run.token + 1, NEVER
            more_of(run).retries = more_of(run).retries + 1
            local is_once = run.delivery == 'o'
            run.started = is_once and NEVER or now
            pass_on(run, is_once and 'c' or 'r', node)
            note(run)
            mine[#mine + 1] = '0'
            mine[#mine + 1] = prefix(node) .. run.ident
        end
        while more() do
            local token, task, most, ident = read('<c12c1I4I4c0')
            local value = is_alive and redis.call('HGET', runs, ident)
            local run = value and string.sub(value, 1, 1) == 'w' and run_of(ident, value)
            local what = '0'
            if run and run.token == tonumber(token)
                and number_of(run.finished) <= number_of(now) then
                local key = key_of(ident)
                local units = going[key] or redis.call('HGET', active, key) or ''
                if task == 'g' then
                    what = 'x'
                    settle(run, now, what, '{{"r":"{DELETED}"}}')
                elseif #units < most * UNIT then
                    what = 't'
                    going[key] = units .. unit_of(ident)
                    attend(run)
                end
            end
            said[#said + 1] = what
        end
        local busy = {{}}
        for key, units in pairs(going) do
            busy[#busy + 1] = key
            busy[#busy + 1] = units
        end
        write_ended()
        send('HSET', active, busy)
        send('ZADD', owned, mine)
        return answer(table.concat(said))
        """,
    ),
    # Who has asked to cancel which of a node's runs. A mark that a run has outlived, since an older
    # release has ended it, is taken away by whoever comes across it.
    "asked": (
        "asked runs",
        "tools spans runs pairs",
        """
        local owner, limit = ARGV[1], tonumber(ARGV[3])
        local function run_at(member)
            local ident = string.sub(member, 9 + tonumber(string.sub(member, 1, 8)))
            local value = redis.call('HGET', runs, ident)
            local run = value and OPEN[string.sub(value, 1, 1)] and run_of(ident, value)
            return run and run.more and run.more.mark ~= '' and run, ident, value
        end
        if ARGV[2] == '' then
            for _, member in ipairs(redis.call('ZRANGE', asked, 0, 19)) do
                if not run_at(member) then redis.call('ZREM', asked, member) end
            end
        end
        local from = ARGV[2] == '' and first(owner) or '(' .. ARGV[2]
        local found = redis.call('ZRANGEBYLEX', asked, from, last(owner), 'LIMIT', 0, limit)
        local used = 0
        for i, member in ipairs(found) do
            if size > tonumber(ARGV[4]) then break end
            used = i
            local run, ident, value = run_at(member)
            if run and run.owner == owner then put(ident, value) end
        end
        local more = used < #found or #found == limit
        return {more and 1 or 0, found[used] or '', table.concat(out)}
        """,
    ),
    "note": (
        "runs",
        "tools checks clock reader runs",
        """
        local node, said = ARGV[1], {}
        local read, more = reader(ARGV[2])
        while more() do
            local token, ident, text = read('<c12I4c0I4c0')
            local value = redis.call('HGET', runs, ident)
            local run = owned_run(ident, value, node, tonumber(token))
            local is_held = run and HELD[run.state]
            said[#said + 1] = is_held and '1' or '0'
            if is_held then
                more_of(run).notes = text
                redis.call('HSET', runs, ident, value_of(run))
            end
        end
        return table.concat(said)
        """,
    ),
    # Of the runs of one instant, by schedule or by hand, it is an open one, if one is open.
    "cancel": (
        "runs active owned kept unlucky waits waiting asked",
        "tools checks clock spans runs unlucky waiting settle",
        f"""
        local now, text, ident, value, state = clock(ARGV[1]), ARGV[4], nil, nil, nil
        for _, kind in ipairs({{'s', 'm'}}) do
            local name = ARGV[2] .. ARGV[3] .. kind
            local found = redis.call('HGET', runs, name)
            local letter = found and string.sub(found, 1, 1)
            if found and (not state or OPEN[letter] and not OPEN[state]) then
                ident, value, state = name, found, letter
            end
        end
        if not state or state == 'q' or not OPEN[state] then return state or '' end
        local run = run_of(ident, value)
        if state == 'w' or run.owner == '' then
            settle(run, now, 'x', text, function() return 'x', '{{"r":"{BEHIND}"}}' end)
            write_ended()
            return 'x'
        end
        if more_of(run).mark == '' then
            run.more.mark = text
            pass_on(run, state, run.owner)
            note(run)
            write_ended()
        end
        return state
        """,
    ),
    # Page by page, the latest first; how many are still to be kept is said to the next page.
    "prune": (
        "runs by_time by_task unlucky call",
        "once tools checks clock spans runs unlucky",
        f"""
        local key, high, letters, keep = ARGV[2], ARGV[3], ARGV[5], tonumber(ARGV[6])
        local before, limit = number_of(ARGV[7]), tonumber(ARGV[8])
        high = high == '' and last(key) or '(' .. high
        local found = redis.call('ZREVRANGEBYLEX', by_task, high, first(key),
            'LIMIT', 0, tonumber(ARGV[4]))
        local idents, gone, of_task, used = {{}}, {{}}, {{}}, 0
        for i, member in ipairs(found) do idents[i] = string.sub(member, #prefix(key) + 1) end
        for i, value in ipairs(values_of(runs, idents)) do
            if #gone == limit then break end
            used = i
            local letter = value and string.sub(value, 1, 1)
            if value and not OPEN[letter] and string.find(letters, letter, 1, true) then
                local time = string.sub(value, 57, {57 + TIME_LENGTH - 1})
                keep = keep - 1
                if keep < 0 or number_of(time) < before then
                    gone[#gone + 1] = idents[i]
                    of_task[#of_task + 1] = found[i]
                    blame(cleared, letter, idents[i], key)
                end
            end
        end
        send('HDEL', runs, gone)
        send('ZREM', by_time, gone)
        send('ZREM', by_task, of_task)
        write_unlucky()
        local more = used > 0 and (used < #found or #found == tonumber(ARGV[4]))
        return answer(string.format('%d %d %d ', more and 1 or 0, #gone, math.max(keep, 0))
            .. (found[used] or ''))
        """,
    ),
}
