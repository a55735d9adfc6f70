"""Scripts of presence in Redis. Each makes one step that no failure of a node can cut in two.

A member's value is `<node>,<node> <time> <info>`, the info of its newest session. If it has more
than one node, `infos` has the time and the info of each, so that the newest that is left counts
after it. A room's names come in this order: members, order, version, nodes. A change is sent by the
script that makes it, to every node of the room.
"""

_COMMON = """
local function parse(value) return string.match(value, '^(%S*) (%S+) (.*)$') end

local function has(nodes, node)
  return string.find(',' .. nodes .. ',', ',' .. node .. ',', 1, true) ~= nil
end

local function without(nodes, node)
  local kept = {}
  for name in string.gmatch(nodes, '[^,]+') do
    if name ~= node then kept[#kept + 1] = name end
  end
  return table.concat(kept, ',')
end

local function field(node, key) return node .. ' ' .. key end

-- Returns time and info of the newest session on these nodes; nil if that is not known.
local function newest(nodes, key)
  local at, info
  for node in string.gmatch(nodes, '[^,]+') do
    local value = redis.call('HGET', KEYS[9], field(node, key))
    if value then
      local its_at, its_info = string.match(value, '^(%S+) (.*)$')
      if not at or tonumber(its_at) > tonumber(at) then at, info = its_at, its_info end
    end
  end
  return at, info
end

-- Takes a node off a key; returns whether the key has left the room.
-- joined: gets the key if it has another info now.
local function release(key, node, joined)
  local value = redis.call('HGET', KEYS[1], key)
  if not value then return false end
  local nodes, at, info = parse(value)
  if not has(nodes, node) then return false end
  nodes = without(nodes, node)
  if nodes ~= '' then
    redis.call('HDEL', KEYS[9], field(node, key))
    local new_at, new_info = newest(nodes, key)
    if not new_at then new_at, new_info = at, info end
    if not string.find(nodes, ',', 1, true) then redis.call('HDEL', KEYS[9], field(nodes, key)) end
    redis.call('HSET', KEYS[1], key, nodes .. ' ' .. new_at .. ' ' .. new_info)
    if new_info ~= info then
      joined[#joined + 1] = key
      joined[#joined + 1] = new_info
      joined[#joined + 1] = 0
    end
    return false
  end
  redis.call('HDEL', KEYS[1], key)
  redis.call('ZREM', KEYS[2], key)
  return true
end

-- Raises the version and sends the change; returns it, or false if nothing has changed.
-- joined: key, info, is it new, and so on. before: the number of keys before the change.
local function announce(prefix, room, epoch, limit, before, joined, left)
  if #joined + #left == 0 then return false end
  redis.call('HSETNX', KEYS[3], 'epoch', epoch)
  local number = redis.call('HINCRBY', KEYS[3], 'number', 1)
  epoch = redis.call('HGET', KEYS[3], 'epoch')
  local count = redis.call('ZCARD', KEYS[2])
  local listed = 1
  if before > limit and count > limit then listed, joined, left = 0, {}, {} end
  local change = cmsgpack.pack({room, epoch, number, count, listed, joined, left})
  for _, node in ipairs(redis.call('SMEMBERS', KEYS[4])) do
    redis.call('PUBLISH', prefix .. 'node:' .. node, change)
  end
  if count == 0 then redis.call('DEL', KEYS[3], KEYS[9]) end
  return change
end
"""

# KEYS: the room's, the node's keys in it, the node's rooms, beats, settling, infos.
# ARGV: prefix, node, room, a new epoch, limit, number of keys that enter; key, time and info of
# each; keys that leave. Returns {status, deferred keys, change}; status 0: the node has no lease.
EDIT = (
    _COMMON
    + """
local prefix, node, room, limit = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[5])
local beat = redis.call('HGET', KEYS[7], node)
if not beat or beat == 'dead' or beat == 'gone' then return {0} end
local settling = redis.call('EXISTS', KEYS[8]) == 1
local before = redis.call('ZCARD', KEYS[2])
local joined, left, deferred = {}, {}, {}
local entered = tonumber(ARGV[6])
for i = 7, 6 + 3 * entered, 3 do
  local key, at, info = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local value = redis.call('HGET', KEYS[1], key)
  local nodes = node
  local new = 1
  local changed = true
  if value then
    local old_at, old_info
    nodes, old_at, old_info = parse(value)
    if not has(nodes, node) then
      if not string.find(nodes, ',', 1, true) then
        redis.call('HSET', KEYS[9], field(nodes, key), old_at .. ' ' .. old_info)
      end
      nodes = nodes .. ',' .. node
    end
    if nodes ~= node then
      redis.call('HSET', KEYS[9], field(node, key), at .. ' ' .. info)
      local new_at, new_info = newest(nodes, key)
      if tonumber(new_at) > tonumber(at) then at, info = new_at, new_info end
    end
    new, changed = 0, info ~= old_info
  else
    redis.call('ZADD', KEYS[2], 0, key)
  end
  redis.call('SADD', KEYS[5], key)
  redis.call('HSET', KEYS[1], key, nodes .. ' ' .. at .. ' ' .. info)
  if changed then
    joined[#joined + 1] = key
    joined[#joined + 1] = info
    joined[#joined + 1] = new
  end
end
for i = 7 + 3 * entered, #ARGV do
  local key = ARGV[i]
  local value = redis.call('HGET', KEYS[1], key)
  if settling and value and without(parse(value), node) == '' then
    deferred[#deferred + 1] = key
  else
    redis.call('SREM', KEYS[5], key)
    if release(key, node, joined) then left[#left + 1] = key end
  end
end
if redis.call('EXISTS', KEYS[5]) == 1 then
  redis.call('SADD', KEYS[4], node)
  redis.call('SADD', KEYS[6], room)
else
  redis.call('SREM', KEYS[4], node)
  redis.call('SREM', KEYS[6], room)
end
return {1, deferred, announce(prefix, room, ARGV[4], limit, before, joined, left)}
"""
)

# KEYS: as for EDIT. ARGV: prefix, node, room, a new epoch, limit, number of keys at most.
# Returns how many keys the node still holds in the room; -1 if it may not be reaped.
REAP = (
    _COMMON
    + """
local prefix, node, room, limit = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[5])
if redis.call('HGET', KEYS[7], node) ~= 'dead' or redis.call('EXISTS', KEYS[8]) == 1 then
  return -1
end
local before = redis.call('ZCARD', KEYS[2])
local joined, left = {}, {}
for _, key in ipairs(redis.call('SPOP', KEYS[5], ARGV[6])) do
  if release(key, node, joined) then left[#left + 1] = key end
end
local rest = redis.call('SCARD', KEYS[5])
if rest == 0 then
  redis.call('SREM', KEYS[4], node)
  redis.call('SREM', KEYS[6], room)
end
announce(prefix, room, ARGV[4], limit, before, joined, left)
return rest
"""
)

# KEYS: the room's, settling. ARGV: limit. Returns {epoch, number, count, {key, value, ...}}; the
# list is false above the limit.
SNAPSHOT = """
local count = redis.call('ZCARD', KEYS[2])
local version = redis.call('HMGET', KEYS[3], 'epoch', 'number')
local members = false
if count <= tonumber(ARGV[1]) then members = redis.call('HGETALL', KEYS[1]) end
return {version[1], version[2], count, members}
"""

# KEYS: the room's, settling. ARGV: first and last place. Returns {epoch, number, count, settling,
# {key, value, ...}}.
PAGE = """
local version = redis.call('HMGET', KEYS[3], 'epoch', 'number')
local rows = {}
for _, key in ipairs(redis.call('ZRANGE', KEYS[2], ARGV[1], ARGV[2])) do
  rows[#rows + 1] = key
  rows[#rows + 1] = redis.call('HGET', KEYS[1], key)
end
local settling = redis.call('EXISTS', KEYS[5])
return {version[1], version[2], redis.call('ZCARD', KEYS[2]), settling, rows}
"""

# KEYS: beats, generation, settling, renewed. ARGV: node, beat, a new generation, channel.
# Returns {is the lease held, generation, settling}.
RENEW = """
local beat = redis.call('HGET', KEYS[1], ARGV[1])
local held = 0
if beat and beat ~= 'dead' and beat ~= 'gone' then held = 1 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
local generation = redis.call('GET', KEYS[2])
if not generation then
  generation = ARGV[3]
  redis.call('SET', KEYS[2], generation)
  redis.call('SET', KEYS[3], '1')
  redis.call('DEL', KEYS[4])
  redis.call('PUBLISH', ARGV[4], 'lost')
end
return {held, generation, redis.call('EXISTS', KEYS[3])}
"""

# KEYS: generation, renewed. ARGV: generation, row.
CONFIRM = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('SADD', KEYS[2], ARGV[2]) end
"""

# KEYS: generation, settling, renewed. ARGV: generation, channel, rows of the live nodes.
# Returns whether settling has ended.
SETTLE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if redis.call('EXISTS', KEYS[2]) == 0 then return 1 end
for i = 3, #ARGV do
  if redis.call('SISMEMBER', KEYS[3], ARGV[i]) == 0 then return 0 end
end
redis.call('DEL', KEYS[2])
redis.call('PUBLISH', ARGV[2], 'settled')
return 1
"""

# KEYS: beats, settling. ARGV: node, the beat that was seen. Returns whether the node is dead.
CONDEMN = """
if redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], 'dead')
return 1
"""

# KEYS: beats, the node's rooms. ARGV: node.
FORGET = """
if redis.call('HGET', KEYS[1], ARGV[1]) == 'dead' and redis.call('EXISTS', KEYS[2]) == 0 then
  redis.call('HDEL', KEYS[1], ARGV[1])
end
"""

# KEYS: beats. ARGV: node. The reaper lets its keys leave after the grace.
DEPART = """
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then
  redis.call('HSET', KEYS[1], ARGV[1], 'gone')
end
"""

# KEYS: the room's, the node's keys in it. Returns {keys that it holds, epoch, number, is it whole}.
CHECK = """
local held, count = redis.call('SCARD', KEYS[5]), redis.call('HLEN', KEYS[1])
local whole = 0
if count == redis.call('ZCARD', KEYS[2]) and count >= held then whole = 1 end
local version = redis.call('HMGET', KEYS[3], 'epoch', 'number')
return {held, version[1], version[2], whole}
"""
