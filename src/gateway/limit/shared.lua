-- Takes from several token buckets of one tenant, from all or from none.
--
-- KEYS: the buckets. ARGV: for each its ticks in a second, rate, burst and cost, whole numbers.
--
-- A bucket is a hash: `used`, what is gone from it, in units of one token divided by the ticks in a second, so that
-- in each tick exactly `rate` units come back; `at`, the microsecond up to which they have; `ticks`. All numbers
-- stay below 2^53, where Lua's are exact. No hash is a full bucket.
--
-- Answers 0, or which bucket is short and in how many microseconds it is not: -1 is never.

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local whole = function(number) return string.format('%.0f', number) end

local short, longest = 0, 0
local after = {}
for i = 1, #KEYS do
  local ticks, rate = tonumber(ARGV[4 * i - 3]), tonumber(ARGV[4 * i - 2])
  local burst, cost = tonumber(ARGV[4 * i - 1]) * ticks, tonumber(ARGV[4 * i]) * ticks
  local span = 1000000 / ticks
  local kept = redis.call('HMGET', KEYS[i], 'used', 'at', 'ticks')
  local used, at = tonumber(kept[1] or '') or 0, tonumber(kept[2] or '') or now
  local kept_ticks = tonumber(kept[3] or '') or ticks
  if kept_ticks ~= ticks then
    used = math.ceil(used / kept_ticks * ticks)
  end
  -- The clock of a server that took over may be behind.
  if at > now then
    at = now
  end
  local elapsed = math.floor((now - at) / span)
  at = at + elapsed * span
  -- A limit that was lowered begins with an empty bucket at worst.
  used = math.max(0, math.min(used, burst) - rate * elapsed)
  if used == 0 then
    at = now
  end
  local missing = used + cost - burst
  if missing > 0 then
    local wait = -1
    if cost <= burst and rate > 0 then
      wait = math.ceil(missing / rate) * span - (now - at)
    end
    if short == 0 or (longest ~= -1 and (wait == -1 or wait > longest)) then
      short, longest = i, wait
    end
  end
  after[i] = { used + cost, at, ticks, rate, span }
end

if short > 0 then
  return { short, longest }
end

for i = 1, #KEYS do
  local used, at, ticks, rate, span = unpack(after[i])
  redis.call('HSET', KEYS[i], 'used', whole(used), 'at', whole(at), 'ticks', whole(ticks))
  if rate > 0 then
    -- Full again by then, which is the same as not being there.
    redis.call('PEXPIRE', KEYS[i], whole(math.ceil(used / rate * span / 1000) + 1000))
  else
    redis.call('PERSIST', KEYS[i])
  end
end
return 0
