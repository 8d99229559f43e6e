-- The same request, streamed in 64 chunks. Environment: MODEL, KEY (sent as a bearer token).
local model = os.getenv("MODEL") or "Qwen/Qwen3-8B"
wrk.method = "POST"
wrk.path = "/v1/chat/completions"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["X-Sim"] = "tokens=64"
if os.getenv("KEY") then
  wrk.headers["Authorization"] = "Bearer " .. os.getenv("KEY")
end
wrk.body = string.format(
  '{"model":"%s","stream":true,"stream_options":{"include_usage":true},'
    .. '"messages":[{"role":"user","content":"Count to sixty-four."}]}',
  model)
