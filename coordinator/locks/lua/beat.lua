-- Keeps claims alive, and tells where each stands. ARGV: milliseconds to live, ids.
local epoch, why = current_epoch()
if not epoch then return {'lost', why} end
sweep()
local told = {}
for at = 2, #ARGV do
  table.insert(told, refreshed(ARGV[at], tonumber(ARGV[1])))
end
return {'ok', epoch, told}
