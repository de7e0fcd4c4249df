-- Takes from several token buckets of one tenant, from all or from none.
--
-- KEYS: the buckets. ARGV: for each bucket its ticks in a second, rate, burst and cost, whole numbers.
--
-- A bucket is a hash: `used`, what is gone from it, in units of one token divided by the ticks in a second, so that
-- in each tick exactly `rate` units come back; `at`, the microsecond up to which they have. All numbers stay below
-- 2^53, where Lua's are exact. No hash is a full bucket.
--
-- Answers which bucket is short, or 0; in how many microseconds it is not, or -1 for never; and of each bucket
-- what is gone from it now.

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local whole = function(number) return string.format('%.0f', number) end

local short, longest = 0, 0
local answer = { 0, 0 }
local after = {}
for i = 1, #KEYS do
  local ticks, rate = tonumber(ARGV[4 * i - 3]), tonumber(ARGV[4 * i - 2])
  local burst, cost = tonumber(ARGV[4 * i - 1]) * ticks, tonumber(ARGV[4 * i]) * ticks
  local span = 1000000 / ticks
  local kept = redis.call('HMGET', KEYS[i], 'used', 'at')
  local used, at = tonumber(kept[1] or '') or 0, tonumber(kept[2] or '') or now
  -- The clock of a server that took over may be behind.
  if at > now then
    at = now
  end
  local elapsed = math.floor((now - at) / span)
  at = at + elapsed * span
  used = math.max(0, used - rate * elapsed)
  if used == 0 then
    at = now
  end
  local missing = used + cost - burst
  answer[i + 2] = used
  if missing > 0 then
    local wait = -1
    if cost <= burst and rate > 0 then
      wait = math.ceil(missing / rate) * span - (now - at)
    end
    if short == 0 or (longest ~= -1 and (wait == -1 or wait > longest)) then
      short, longest = i, wait
    end
  else
    used = used + cost
  end
  after[i] = { used, at, rate, span }
end

if short > 0 then
  answer[1], answer[2] = short, longest
  return answer
end

for i = 1, #KEYS do
  local used, at, rate, span = unpack(after[i])
  answer[i + 2] = used
  redis.call('HSET', KEYS[i], 'used', whole(used), 'at', whole(at))
  if rate > 0 then
    -- Full again by then, which is the same as not being there.
    redis.call('PEXPIRE', KEYS[i], whole(math.ceil(used / rate * span / 1000) + 1000))
  else
    redis.call('PERSIST', KEYS[i])
  end
end
return answer
