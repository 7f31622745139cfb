-- Ends every claim that holds a key, and returns them: id and JSON, in turns. ARGV: key, why.
local epoch, why = current_epoch()
if not epoch then return {'lost', why} end
sweep()
local broken, told = {}, {}
for _, id in ipairs(key_of(ARGV[1]).g) do
  table.insert(broken, id)
  table.insert(told, id)
  table.insert(told, cjson.encode(claim_of(id)))
end
finish(broken, BROKEN, ARGV[2])
return {'ok', epoch, told}
