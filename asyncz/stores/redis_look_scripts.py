"""The Lua scripts that read records of tasks, page by page."""

from __future__ import annotations

__all__ = ["LOOK_BODIES"]

LOOK_BODIES: dict[str, tuple[str, str, str]] = {
    # name: keys, parts, text
    "fetch": (
        "tasks places",
        "",
        """
        return {redis.call('HGET', tasks, ARGV[1]), redis.call('HGET', places, ARGV[1])}
        """,
    ),
    # A record that is missing is an empty one, which cannot be read and so is not lost sight of.
    "page": (
        "tasks run_times batches",
        "tools pairs",
        """
        local found = redis.call(
            'ZRANGEBYLEX', run_times, ARGV[1], ARGV[2], 'LIMIT', 0, tonumber(ARGV[3]))
        local used = 0
        for i, member in ipairs(found) do
            if size > tonumber(ARGV[4]) then break end
            used = i
            put(member, redis.call('HGET', tasks, string.sub(member, PLACE + 1)) or '')
        end
        return {redis.call('EXISTS', batches), used < #found and 1 or 0, table.concat(out)}
        """,
    ),
    # The next page for whoever asks, so that no two get the same. What was handed out last is but
    # advice, which a server without memory left may forget: who asked, whether others did, where.
    "page_apart": (
        "tasks run_times batches handed_out",
        "tools pairs",
        """
        local me, limit, length = ARGV[1], tonumber(ARGV[3]), #ARGV[1]
        local before, shared, found = redis.pcall('GET', handed_out), '0', {}
        local function behind(begin)
            return redis.call('ZRANGEBYLEX', run_times, begin, ARGV[2], 'LIMIT', 0, limit)
        end
        if type(before) ~= 'string' then before = false end
        if before then
            local others = string.sub(before, length + 1, length + 1) == '1'
            if others or string.sub(before, 1, length) ~= me then shared = '1' end
            found = behind('(' .. string.sub(before, length + 2))
        end
        local is_all = false
        if not before or shared == '0' and #found == 0 then
            found, shared = behind('-'), '0'
            is_all = #found < limit
        end
        local used = 0
        for i, member in ipairs(found) do
            if size > tonumber(ARGV[4]) then break end
            used = i
            put(member, redis.call('HGET', tasks, string.sub(member, PLACE + 1)) or '')
        end
        is_all = is_all and used == #found
        if used > 0 and not is_all then
            redis.pcall('SET', handed_out, me .. shared .. found[used], 'PX', ARGV[5])
        end
        return {redis.call('EXISTS', batches), is_all and 1 or 0, table.concat(out)}
        """,
    ),
    "records": (
        "tasks places",
        "tools pairs",
        """
        local used = 0
        for i = 2, #ARGV do
            if size > tonumber(ARGV[1]) then break end
            used = i - 1
            local place = redis.call('HGET', places, ARGV[i])
            if place then
                local data = redis.call('HGET', tasks, ARGV[i]) or ''
                put(string.sub(place, 1, PLACE) .. ARGV[i], data)
            end
        end
        return {used, table.concat(out)}
        """,
    ),
}
