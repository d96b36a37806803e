"""The Lua scripts that look at runs, and the one that forgets them. See `redis_run_lua`."""

from __future__ import annotations

__all__ = ["LEDGER_BODIES"]

LEDGER_BODIES: dict[str, tuple[str, str, str]] = {
    # name: keys, parts, text
    "look": (
        "run_times owned gone batches waiting asked",
        "tools clock spans",
        """
        local found = redis.call('ZRANGEBYLEX', run_times, '-', '(p', 'LIMIT', 0, 1)
        local left = redis.call('ZLEXCOUNT', owned, first(''), last(''))
        for _, node in ipairs(redis.call('ZRANGE', gone, 0, -1)) do
            left = left + redis.call('ZLEXCOUNT', owned, first(node), last(node))
        end
        local due = found[1] and string.sub(found[1], 1, TIME) or ''
        found = redis.call('ZRANGEBYLEX', waiting, '-', '+', 'LIMIT', 0, 1)
        local again = found[1] and string.sub(found[1], 1, TIME) or ''
        return {
            clock(ARGV[1]), due, left, redis.call('EXISTS', batches),
            again, redis.call('EXISTS', asked),
        }
        """,
    ),
    "owned": (
        "owned runs kept places tasks",
        "tools spans runs pairs record",
        """
        local owner, from, limit = ARGV[1], ARGV[2], tonumber(ARGV[3])
        from = from == '' and first(owner) or '(' .. from
        local found = redis.call('ZRANGEBYLEX', owned, from, last(owner), 'LIMIT', 0, limit)
        local used = 0
        for i, member in ipairs(found) do
            if size > tonumber(ARGV[4]) then break end
            used = i
            local ident = string.sub(member, #prefix(owner) + 1)
            local value = redis.call('HGET', runs, ident)
            put(ident, value)
            put_record(ident, value)
        end
        local more = used < #found or #found == limit
        return {more and 1 or 0, found[used] or '', table.concat(out)}
        """,
    ),
    "count_active": (
        "active",
        "tools runs",
        """
        local counts = {}
        for i, units in ipairs(values_of(active, ARGV)) do counts[i] = #(units or '') / UNIT end
        return counts
        """,
    ),
    # What follows a head that is open looks like it, but that it waits.
    "history": (
        "runs by_time by_task owned waits unlucky meta",
        "tools runs pairs",
        """
        local sets = {
            by_time = by_time, by_task = by_task, owned = owned, waits = waits,
            unlucky = unlucky, unlucky_of = unlucky,
        }
        local of_state = string.sub(ARGV[1], 1, 7) == 'unlucky' and 1 or 0
        if of_state == 1 and redis.call('HGET', meta, 'unlucky') ~= 'all' then
            return {-1, '', ''}
        end
        local before = ARGV[1] == 'waits' and TIME or 0
        local found = redis.call('ZREVRANGEBYLEX', sets[ARGV[1]], ARGV[2], ARGV[3],
            'LIMIT', 0, tonumber(ARGV[4]))
        local idents, used = {}, 0
        for i, member in ipairs(found) do
            member = string.sub(member, 1 + of_state)
            if ARGV[1] == 'by_time' or ARGV[1] == 'unlucky' then
                idents[i] = member
            else
                idents[i] = string.sub(member, 9 + before + tonumber(string.sub(member, 1, 8)))
            end
        end
        for i, value in ipairs(values_of(runs, idents)) do
            if size > tonumber(ARGV[6]) then break end
            used = i
            local state = value and string.sub(value, 1, 1)
            if value and (ARGV[5] == '' or string.find(ARGV[5], state, 1, true)) then
                if state == 'q' then
                    local head = string.sub(value, 2) .. string.sub(idents[i], TIME + 1)
                    value = 'q' .. string.sub(redis.call('HGET', runs, head) or value, 2)
                end
                put(idents[i], value)
            end
        end
        local more = used < #found or #found == tonumber(ARGV[4])
        return {more and 1 or 0, found[used] or '', table.concat(out)}
        """,
    ),
    # Of each task, the last of its members. What is open is as it is in `history`.
    "last": (
        "runs by_task",
        "tools spans runs pairs",
        """
        local used = 0
        for i = 2, #ARGV do
            if size > tonumber(ARGV[1]) then break end
            used = i - 1
            local key = ARGV[i]
            local found = redis.call('ZREVRANGEBYLEX', by_task, last(key), first(key),
                'LIMIT', 0, 1)[1]
            local ident = found and string.sub(found, #prefix(key) + 1)
            local value = ident and redis.call('HGET', runs, ident)
            if value and string.sub(value, 1, 1) == 'q' then
                local head = string.sub(value, 2) .. string.sub(ident, TIME + 1)
                value = 'q' .. string.sub(redis.call('HGET', runs, head) or value, 2)
            end
            if value then put(ident, value) end
        end
        return {used, table.concat(out)}
        """,
    ),
    # Page by page, the earliest first: nothing is settled before it is due.
    "forget": (
        "runs by_time by_task unlucky call",
        "once tools checks clock spans runs unlucky",
        """
        local before, rows, room = number_of(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
        local low = ARGV[5] == '' and '-' or '(' .. ARGV[5]
        local found = redis.call('ZRANGEBYLEX', by_time, low, '(' .. ARGV[2], 'LIMIT', 0, rows)
        local gone, of_task, used = {}, {}, 0
        for i, value in ipairs(values_of(runs, found)) do
            if #gone == room then break end
            used = i
            local ident, letter = found[i], value and string.sub(value, 1, 1)
            local finished = value and number_of(string.sub(value, 57, 75))
            if finished and not OPEN[letter] and finished < before then
                local is_earlier = string.find(string.sub(ident, -1), '%u')
                local key = string.sub(ident, TIME + 1, is_earlier and -20 or -2)
                gone[#gone + 1] = ident
                of_task[#of_task + 1] = prefix(key) .. ident
                blame(cleared, letter, ident, key)
            end
        end
        send('HDEL', runs, gone)
        send('ZREM', by_time, gone)
        send('ZREM', by_task, of_task)
        write_unlucky()
        local more = used > 0 and (used < #found or #found == rows)
        return answer(string.format('%d %d ', more and 1 or 0, #gone) .. (found[used] or ''))
        """,
    ),
}
