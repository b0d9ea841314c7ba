-- Groups one page of a lane's dead letters by fingerprint, from the index (rqjobs/dead_letters/index.py).
-- ARGV: RQ's prefix, our prefix, lane, a text in lower case ('' = all dead letters), first and last entry of the page.
-- Returns {how many entries were read, then for each group {its score, how many, the time (score in the registry) and the
--   id of the one that died first, the same of each of the newest five}}
local prefix, ours, lane, text, first_entry, last_entry = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local failed, reasons = prefix .. ':failed:' .. lane, ours .. ':dead:reasons:' .. lane
local texts, most = ours .. ':dead:texts:' .. lane, 5
local known, answer, group = {}, {}, nil

local function has(value) return type(value) == 'string' and string.find(string.lower(value), text, 1, true) ~= nil end

local function by_reason(id)
  local number = try('ZSCORE', reasons, id)
  if not number then return false end
  if known[number] == nil then known[number] = has(try('HGET', texts, number)) end
  return known[number]
end

local function wanted(id)
  return text == '' or has(id) or by_reason(id) or has(try('HGET', prefix .. ':job:' .. id, 'description'))
end

local function close()
  if not group then return end
  local row = {group.score, group.count}
  for _, each in ipairs({group.oldest, unpack(group.newest)}) do
    row[#row + 1] = string.format('%.6f', each[1])
    row[#row + 1] = each[2]
  end
  answer[#answer + 1] = row
end

local page = redis.call('ZRANGE', ours .. ':dead:groups:' .. lane, first_entry, last_entry, 'WITHSCORES')
for i = 1, #page, 2 do
  local id, died = page[i], tonumber(redis.call('ZSCORE', failed, page[i]) or '')
  if died and wanted(id) then  -- otherwise a command of RQ has removed it from the dead letters
    if not group or group.score ~= page[i + 1] then
      close()
      group = {score = page[i + 1], count = 0, newest = {}, oldest = {died, id}}
    end
    group.count = group.count + 1
    if died < group.oldest[1] then group.oldest = {died, id} end
    local newest = group.newest
    if #newest < most or died >= newest[#newest][1] then
      local at = 1
      while newest[at] and newest[at][1] > died do at = at + 1 end
      table.insert(newest, at, {died, id})
      newest[most + 1] = nil
    end
  end
end
close()
table.insert(answer, 1, #page / 2)
return answer
