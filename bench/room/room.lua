-- A waiting room as one writes it over Redis: visitors inside are the sorted set wr:active (score: last
-- seen), visitors waiting the list wr:queue, visitors let go the set wr:released. Every request asks.
local Redis = require "redis"
local Room = {}
Room.__index = Room

function Room.new(config)
  return setmetatable(config, Room)
end

function Room:redis()
  local r, err = Redis.open(self.host, self.port)
  if not r then
    ngx.log(ngx.ERR, "redis: ", err)
    return ngx.exit(503)
  end
  return r
end

local function new_token()
  local hex = string.format("%08x%08x%08x%08x", math.random(0, 0x7fffffff), math.random(0, 0x7fffffff), math.random(0, 0x7fffffff),
    math.random(0, 0x7fffffff))
  return hex:sub(1, 8) .. "-" .. hex:sub(9, 12) .. "-4" .. hex:sub(14, 16) .. "-8" .. hex:sub(18, 20) .. "-" .. hex:sub(21, 32)
end

local function token_of_request()
  local value = ngx.var.cookie_wr_token
  return value and #value >= 36 and value:sub(1, 36) or nil
end

local function tell(token)
  ngx.header["Set-Cookie"] = "wr_token=" .. token .. "; Path=/; HttpOnly; SameSite=Lax; Max-Age=1800"
end

-- Lets a visitor in that is inside, or that finds a free slot; puts any other in the queue.
function Room:gate()
  local token, r = token_of_request(), self:redis()
  local known = token ~= nil
  if known then
    if r:call("ZSCORE", "wr:active", token) ~= ngx.null then
      r:call("ZADD", "wr:active", ngx.time(), token)
      r:close()
      return
    end
  else
    token = new_token()
    tell(token)
  end
  if r:call("ZCARD", "wr:active") < self.max_active then
    r:call("ZADD", "wr:active", ngx.time(), token)
    r:close()
    return
  end
  if not known or r:call("LPOS", "wr:queue", token) == ngx.null then
    r:call("RPUSH", "wr:queue", token)
  end
  r:close()
  ngx.header["Cache-Control"] = "no-store"
  ngx.header["Location"] = "/queue.html"
  return ngx.exit(302)
end

-- Tells a waiting visitor its place, or lets it in.
function Room:check()
  local token, r = token_of_request(), self:redis()
  if not token then
    token = new_token()
    tell(token)
  end
  if r:call("SREM", "wr:released", token) == 1 then
    r:call("ZADD", "wr:active", ngx.time(), token)
    r:close()
    ngx.header["Location"] = "/"
    return ngx.exit(302)
  end
  local place = r:call("LPOS", "wr:queue", token)
  if place == ngx.null then
    place = r:call("RPUSH", "wr:queue", token) - 1
  end
  r:close()
  local body = '{"status":"waiting","position":' .. (place + 1) .. "}"
  ngx.header["Cache-Control"] = "no-store"
  ngx.header["Retry-After"] = "3"
  ngx.header["Content-Length"] = #body
  ngx.print(body)
end

-- Expires who has not been seen, and lets as many go as there are free slots.
function Room:release()
  local r = Redis.open(self.host, self.port)
  if not r then
    return
  end
  r:call("ZREMRANGEBYSCORE", "wr:active", "-inf", ngx.time() - self.active_ttl)
  local free = self.max_active - r:call("ZCARD", "wr:active") - r:call("SCARD", "wr:released")
  local heads = free > 0 and r:call("LPOP", "wr:queue", free) or ngx.null
  if heads ~= ngx.null then
    r:call("SADD", "wr:released", unpack(heads))
  end
  r:close()
end

-- Runs release in one worker, for as long as it lives.
function Room:start()
  math.randomseed(ngx.now() * 1000 + ngx.worker.pid())
  if ngx.worker.id() == 0 then
    ngx.timer.every(self.release_interval, function() self:release() end)
  end
end

return Room
