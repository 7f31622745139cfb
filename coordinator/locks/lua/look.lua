-- Every claim that was not ended: now, then id, JSON and when it expires, in turns.
local epoch, why = current_epoch()
if not epoch then return {'lost', why} end
sweep()
local told, all = {tostring(now)}, redis.call('HGETALL', state)
for at = 1, #all, 2 do
  if string.sub(all[at], 1, 2) == 'c:' then
    local id = string.sub(all[at], 3)
    if not cjson.decode(all[at + 1]).e then
      table.insert(told, id)
      table.insert(told, all[at + 1])
      table.insert(told, redis.call('ZSCORE', deadlines, id) or tostring(now))
    end
  end
end
return {'ok', epoch, told}
