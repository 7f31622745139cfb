-- Grants a claim, or has it wait behind all that came before; asked again, tells where it stands.
-- ARGV: id, the claim as JSON, milliseconds to live.
local epoch, why = current_epoch()
if not epoch then return {'lost', why} end
sweep()
local id, ttl_ms = ARGV[1], tonumber(ARGV[3])
if not claim_of(id) then
  local claim = cjson.decode(ARGV[2])
  for _, name in ipairs(claim.k) do
    if #key_of(name).w >= WAITING_MAX then return {'ok', epoch, {FULL, 0, ''}} end
  end
  claim.p = redis.call('HINCRBY', state, 'place', 1)
  claim.s, claim.g = now, 0
  claims[id] = claim
  for _, name in ipairs(claim.k) do
    table.insert(key_of(name).w, id)
    keep_key(name)
  end
  keep_claim(id)
end
return {'ok', epoch, refreshed(id, ttl_ms)}
