-- What every script begins with: the store's rules on Redis. `lock_table.py` is the same in memory.
--
-- All that is known stands in one hash, KEYS[1], so that Redis loses it whole or not at all:
--   marker        "<epoch> <run id> <proposed|active>": whose data this is. A server that restarted, or that was a
--                 replica, has another run id; one that was flushed has no marker. Either way: lost.
--   counter       the last grant's number within the epoch
--   place         the last claim's place
--   c:<claim id>  a claim: o owner, b born, k keys, m mode (1 shared, 2 exclusive), h holder, p place, s since when,
--                 g number of the grant or 0; and once it was ended: e phase, w why
--   k:<key>       g: ids of the claims that hold the key; w: of those that wait for it, by place
-- KEYS[2] is a sorted set of claim ids by when they expire, in milliseconds. It has a mark of the epoch too, for it
-- could be evicted alone. Lists named KEYS[1]:news:<holder> have ids of claims whose standing others changed.
local state, deadlines = KEYS[1], KEYS[2]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local WAITING, GRANTED, CONDEMNED, BROKEN, GONE, FULL = 1, 2, 3, 4, 5, 6
local COUNTER_MAX, WAITING_MAX, SWEPT_MAX, NEWS_KEPT_S = 1073741823, 1000, 100, 60

local function run_id()
  return string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
end

local function marker()
  local written = redis.call('HGET', state, 'marker')
  if not written then return nil end
  return string.match(written, '^(%d+) (%x+) (%a+)$')
end

-- The epoch whose data these are, or nil and why they are nobody's.
local function current_epoch()
  local epoch, run, standing = marker()
  if not epoch then return nil, 'it is empty' end
  if run ~= run_id() then return nil, 'it was restarted, or another server took its place' end
  if standing ~= 'active' then return nil, 'its epoch has not begun' end
  if not redis.call('ZSCORE', deadlines, '#' .. epoch) then return nil, 'a part of it is gone' end
  if tonumber(redis.call('HGET', state, 'counter') or 0) >= COUNTER_MAX then return nil, 'its epoch is used up' end
  return epoch
end

local claims, keys = {}, {}

local function claim_of(id)
  if claims[id] == nil then
    local written = redis.call('HGET', state, 'c:' .. id)
    claims[id] = written and cjson.decode(written) or false
  end
  return claims[id]
end

local function keep_claim(id)
  redis.call('HSET', state, 'c:' .. id, cjson.encode(claims[id]))
end

local function key_of(name)
  if not keys[name] then
    local written = redis.call('HGET', state, 'k:' .. name)
    keys[name] = written and cjson.decode(written) or {g = {}, w = {}}
  end
  return keys[name]
end

local function keep_key(name)
  local key = keys[name]
  if #key.g == 0 and #key.w == 0 then
    redis.call('HDEL', state, 'k:' .. name)
  else
    redis.call('HSET', state, 'k:' .. name, cjson.encode(key))
  end
end

local function take_out(ids, id)
  for at, other in ipairs(ids) do
    if other == id then
      table.remove(ids, at)
      return
    end
  end
end

local function tell(claim, id)
  local news = state .. ':news:' .. claim.h
  redis.call('RPUSH', news, id)
  redis.call('EXPIRE', news, NEWS_KEPT_S)
end

local function excludes(one, other)
  return one.o ~= other.o and (one.m == 2 or other.m == 2)
end

local function is_barred(claim, key)
  local is_held_by_owner = false
  for _, id in ipairs(key.g) do
    local held = claim_of(id)
    if excludes(claim, held) then return true end
    is_held_by_owner = is_held_by_owner or held.o == claim.o
  end
  -- Whoever waits for this key waits for its owner already.
  if is_held_by_owner then return false end
  for _, id in ipairs(key.w) do
    local other = claim_of(id)
    if other.p >= claim.p then return false end
    if excludes(claim, other) then return true end
  end
  return false
end

local function grant_if_free(id)
  local claim = claims[id]
  for _, name in ipairs(claim.k) do
    if is_barred(claim, key_of(name)) then return false end
  end
  claim.g = redis.call('HINCRBY', state, 'counter', 1)
  claim.s = now
  for _, name in ipairs(claim.k) do
    local key = key_of(name)
    take_out(key.w, id)
    table.insert(key.g, id)
    keep_key(name)
  end
  keep_claim(id)
  return true
end

-- Adds to `behind` those of a key's queue who may be free: the rest stands behind one who excludes it. Whoever's
-- owner holds the key already, or is among those that may be free, stands behind nobody.
local function add_next(key, behind)
  local names, barred = {}, false
  for _, id in ipairs(key.g) do names[claim_of(id).o] = true end
  for _, id in ipairs(key.w) do
    local claim = claim_of(id)
    if not barred then names[claim.o] = true end
    if names[claim.o] then behind[id] = true end
    barred = barred or claim.m == 2
  end
end

-- Takes claims out of their keys, and grants what only they stood in the way of, by place.
local function leave(ids)
  local behind, left, touched, order = {}, {}, {}, {}
  for _, id in ipairs(ids) do
    local claim = claims[id]
    left[id] = true
    for _, name in ipairs(claim.e and {} or claim.k) do
      local key = key_of(name)
      take_out(claim.g > 0 and key.g or key.w, id)
      touched[name] = true
    end
  end
  -- Once for each key: many leave a long queue together.
  for name in pairs(touched) do
    keep_key(name)
    add_next(key_of(name), behind)
  end
  for id in pairs(behind) do
    if not left[id] then table.insert(order, id) end
  end
  table.sort(order, function(one, other) return claims[one].p < claims[other].p end)
  for _, id in ipairs(order) do
    if claims[id].g == 0 and grant_if_free(id) then tell(claims[id], id) end
  end
end

local function drop(ids)
  local known = {}
  for _, id in ipairs(ids) do
    if claim_of(id) then table.insert(known, id) end
    redis.call('ZREM', deadlines, id)
  end
  leave(known)
  for _, id in ipairs(known) do
    redis.call('HDEL', state, 'c:' .. id)
    claims[id] = false
  end
end

-- Ends claims for good, leaving what became of them for whoever keeps them alive.
local function finish(ids, phase, why)
  leave(ids)
  for _, id in ipairs(ids) do
    claims[id].e, claims[id].w = phase, why
    keep_claim(id)
    tell(claims[id], id)
  end
end

-- Where a claim stands: phase, number of the grant, why it was ended. It lives for so long from now.
local function refreshed(id, ttl_ms)
  local claim = claim_of(id)
  if not claim then return {GONE, 0, ''} end
  redis.call('ZADD', deadlines, now + ttl_ms, id)
  if claim.e then return {claim.e, 0, claim.w} end
  if claim.g == 0 then grant_if_free(id) end
  return {claim.g > 0 and GRANTED or WAITING, claim.g, ''}
end

local function sweep()
  drop(redis.call('ZRANGEBYSCORE', deadlines, '-inf', now, 'LIMIT', 0, SWEPT_MAX))
end
