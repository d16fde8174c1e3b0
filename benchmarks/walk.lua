-- wrk asks what a file says, a request a line, from the top and round again: a path to GET, or JSON to POST to /v1/lookup.
-- wrk ... -s walk.lua URL -- FILE GET|POST      At the end it prints one line of JSON.

local asked, place = {}, 0

function init(args)
  wrk.headers["Content-Type"] = args[2] == "POST" and "application/json" or nil
  for line in io.lines(args[1]) do
    asked[#asked + 1] = args[2] == "POST" and wrk.format("POST", "/v1/lookup", nil, line) or wrk.format("GET", line)
  end
end

function request()
  place = place % #asked + 1
  return asked[place]
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '\n{"requests": %d, "seconds": %f, "p50_ms": %f, "p99_ms": %f, "errors": %d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
