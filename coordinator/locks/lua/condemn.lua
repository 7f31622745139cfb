-- Ends a claim that waits, for good: 1, or 0 where it does not wait. ARGV: id, why.
local epoch, why = current_epoch()
if not epoch then return {'lost', why} end
sweep()
local claim = claim_of(ARGV[1])
if not claim or claim.e or claim.g > 0 then return {'ok', epoch, 0} end
finish({ARGV[1]}, CONDEMNED, ARGV[2])
return {'ok', epoch, 1}
