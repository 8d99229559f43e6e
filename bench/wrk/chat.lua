-- A plain chat request of about 300 bytes. Environment: MODEL, KEY (sent as a bearer token).
local model = os.getenv("MODEL") or "Qwen/Qwen3-8B"
local prompt = "Tell me, in two or three short sentences, what a gateway in front of several inference "
  .. "engines has to do when one of them stops answering."
wrk.method = "POST"
wrk.path = "/v1/chat/completions"
wrk.headers["Content-Type"] = "application/json"
if os.getenv("KEY") then
  wrk.headers["Authorization"] = "Bearer " .. os.getenv("KEY")
end
wrk.body = string.format(
  '{"model":"%s","messages":[{"role":"system","content":"You are a helpful assistant."},'
    .. '{"role":"user","content":"%s"}],"max_tokens":64,"temperature":0.7}',
  model, prompt)
