-- Begins an epoch in two steps, between which it is made sure that no higher one was drawn. ARGV: step, epoch.
-- `propose` drops what nobody may rely on, unless an epoch runs or a higher one is proposed; `activate` lets the
-- epoch run that is proposed. Returns the epoch that stands now, and whether it runs.
local running = current_epoch()
if running then return {running, 'active'} end
local proposed, run, standing = marker()
local is_ours = proposed == ARGV[2] and run == run_id() and standing == 'proposed'
if ARGV[1] == 'activate' then
  if not is_ours then return {proposed or '0', 'proposed'} end
  redis.call('ZADD', deadlines, 'inf', '#' .. ARGV[2])
  redis.call('HSET', state, 'marker', ARGV[2] .. ' ' .. run .. ' active')
  return {ARGV[2], 'active'}
end
if proposed and run == run_id() and standing == 'proposed' and tonumber(proposed) > tonumber(ARGV[2]) then
  return {proposed, 'proposed'}
end
redis.call('DEL', state, deadlines)
redis.call('HSET', state, 'marker', ARGV[2] .. ' ' .. run_id() .. ' proposed')
return {ARGV[2], 'proposed'}
