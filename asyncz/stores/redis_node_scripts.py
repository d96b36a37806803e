"""The Lua scripts for nodes: who is alive, and whose runs are anybody's.

A node is alive as long as it is in the sorted set of leases. `gone` are those that are not alive
any more, and may still own runs.
"""

from __future__ import annotations

from asyncz.stores.redis_run_lua import NODE_HEAD

__all__ = ["NODE_BODIES"]

NODE_BODIES: dict[str, tuple[str, str, str]] = {
    # name: keys, parts, text
    "join": (
        "leases nodes gone meta",
        "tools checks clock",
        """
        local now, node = clock(ARGV[1]), ARGV[2]
        local until_then = number_of(now) + tonumber(ARGV[3])
        local value = redis.call('ZSCORE', leases, node) and redis.call('HGET', nodes, node)
        local number = value and string.sub(value, 2, 11)
            or string.format('%010d', redis.call('HINCRBY', meta, 'nodes', 1))
        local joined = value and string.sub(value, 12, 30) or now
        value = 'a' .. number .. joined .. now .. time_of(until_then) .. '00000000' .. ARGV[4]
        redis.call('HSET', nodes, node, value)
        redis.call('ZADD', leases, string.format('%.0f', until_then), node)
        redis.call('ZREM', gone, node)
        return ''
        """,
    ),
    "renew": (
        "leases nodes",
        "tools checks clock",
        f"""
        local now, node = clock(ARGV[1]), ARGV[2]
        local value = redis.call('ZSCORE', leases, node) and redis.call('HGET', nodes, node)
        if not value then return 0 end
        local until_then = number_of(now) + tonumber(ARGV[3])
        value = string.sub(value, 1, 30) .. now .. time_of(until_then)
            .. string.format('%08d', ARGV[4]) .. string.sub(value, {NODE_HEAD + 1})
        redis.call('HSET', nodes, node, value)
        redis.call('ZADD', leases, string.format('%.0f', until_then), node)
        return 1
        """,
    ),
    "leave": (
        "leases nodes owned gone",
        "tools checks spans",
        """
        local node = ARGV[1]
        local value = redis.call('HGET', nodes, node)
        if not value then return '' end
        if redis.call('ZREM', leases, node) == 1 then
            redis.call('HSET', nodes, node, 'l' .. string.sub(value, 2))
        end
        if redis.call('ZLEXCOUNT', owned, first(node), last(node)) > 0 then
            redis.call('ZADD', gone, 0, node)
        end
        return ''
        """,
    ),
    "nodes": (
        "nodes",
        "tools clock",
        """
        return {clock(ARGV[1]), redis.call('HGETALL', nodes)}
        """,
    ),
    # Who asks is alive, whatever its lease says.
    "bury": (
        "leases nodes owned gone call",
        "once tools checks clock spans",
        """
        local node = ARGV[3]
        if not redis.call('ZSCORE', leases, node) then return '' end
        local out, late = {}, {}
        if ARGV[4] ~= '' then
            local bound = string.format('(%.0f', number_of(ARGV[4]))
            late = redis.call('ZRANGEBYSCORE', leases, '-inf', bound)
        end
        local function put(letter, name)
            out[#out + 1] = letter .. struct.pack('<I4', #name) .. name
        end
        for _, name in ipairs(late) do
            if name ~= node then
                local value = redis.call('HGET', nodes, name)
                redis.call('ZREM', leases, name)
                redis.call('ZADD', gone, 0, name)
                if value then redis.call('HSET', nodes, name, 'd' .. string.sub(value, 2)) end
                put('d', name)
            end
        end
        if redis.call('ZLEXCOUNT', owned, first(''), last('')) > 0 then put('o', '') end
        for _, name in ipairs(redis.call('ZRANGE', gone, 0, -1)) do
            if redis.call('ZLEXCOUNT', owned, first(name), last(name)) > 0 then
                put('o', name)
            else
                redis.call('ZREM', gone, name)
            end
        end
        return answer(table.concat(out))
        """,
    ),
    "forget_nodes": (
        "leases nodes owned gone",
        "tools checks clock spans",
        """
        local before, forgotten = number_of(ARGV[1]), {}
        local found = redis.call('HGETALL', nodes)
        for i = 1, #found, 2 do
            local node, seen = found[i], number_of(string.sub(found[i + 1], 31, 49))
            if seen < before and not redis.call('ZSCORE', leases, node)
                and redis.call('ZLEXCOUNT', owned, first(node), last(node)) == 0 then
                forgotten[#forgotten + 1] = node
            end
        end
        send('HDEL', nodes, forgotten)
        send('ZREM', gone, forgotten)
        return #forgotten
        """,
    ),
}
