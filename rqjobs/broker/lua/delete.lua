-- Deletes a job with all its keys; with ``keep_result`` its result is kept for a minute, for a process that waits for it.
local function delete_job(prefix, id, keep_result)
  redis.call('DEL', prefix .. ':job:' .. id, prefix .. ':job:' .. id .. ':dependents',
    prefix .. ':job::' .. id .. ':dependencies', prefix .. ':executions:' .. id)
  if keep_result then
    redis.call('EXPIRE', prefix .. ':results:' .. id, 60)
  else
    redis.call('DEL', prefix .. ':results:' .. id)
  end
end

