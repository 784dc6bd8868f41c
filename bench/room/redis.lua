-- A Redis client over cosockets: one command at a time, or several in one write, on pooled connections.
local tcp = ngx.socket.tcp
local Redis = {}
Redis.__index = Redis

local idle_ms, pool_size = 60000, 200

function Redis.open(host, port)
  local sock = tcp()
  sock:settimeouts(1000, 1000, 20000) -- a scan of a long list takes its time
  local ok, err = sock:connect(host, port, { pool_size = pool_size })
  if not ok then
    return nil, err
  end
  return setmetatable({ sock = sock }, Redis)
end

-- Gives the connection back. One that has failed is closed instead.
function Redis:close()
  if self.failed then
    self.sock:close()
  else
    self.sock:setkeepalive(idle_ms, pool_size)
  end
end

local function encode(...)
  local n = select("#", ...)
  local parts = { "*", n, "\r\n" }
  for i = 1, n do
    local text = tostring((select(i, ...)))
    local at = #parts
    parts[at + 1], parts[at + 2], parts[at + 3], parts[at + 4], parts[at + 5] = "$", #text, "\r\n", text, "\r\n"
  end
  return parts
end

local function read(sock)
  local line, err = sock:receive()
  if not line then
    return nil, err
  end
  local kind, rest = line:sub(1, 1), line:sub(2)
  if kind == "+" then
    return rest
  elseif kind == "-" then
    return nil, rest, true -- an answer, so the connection is as good as before
  elseif kind == ":" then
    return tonumber(rest)
  end
  local size = tonumber(rest)
  if size < 0 then
    return ngx.null
  end
  if kind == "$" then
    local text
    text, err = sock:receive(size + 2)
    return text and text:sub(1, size), err
  end
  local list = {}
  for i = 1, size do
    list[i], err = read(sock)
    if list[i] == nil then
      return nil, err
    end
  end
  return list
end

-- Sends one command and returns its answer; ngx.null for none.
function Redis:call(...)
  local ok, err = self.sock:send(encode(...))
  if not ok then
    self.failed = true
    return nil, err
  end
  local answer, refused
  answer, err, refused = read(self.sock)
  self.failed = answer == nil and not refused
  return answer, err
end

return Redis
