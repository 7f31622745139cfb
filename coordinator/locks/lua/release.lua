-- Forgets claims, held or waiting, and grants what only they stood in the way of. ARGV: their ids.
local epoch, why = current_epoch()
if not epoch then return {'lost', why} end
sweep()
drop(ARGV)
return {'ok', epoch}
