"""What an application does with the openai SDK, through Tollgate.

Called by tests/behaviour/sdk.rs with the gateway's base URL and a model's name; exits 0 when all is well.
"""

import sys

import openai

base_url, model = sys.argv[1:3]
client = openai.OpenAI(base_url=base_url, api_key="unused", max_retries=0, timeout=20)
messages = [{"role": "user", "content": "Hello"}]


def lists_models():
    ids = [entry.id for entry in client.models.list()]
    assert ids == [model], ids
    assert client.models.retrieve(model).id == model


def chats():
    answer = client.chat.completions.create(model=model, messages=messages)
    assert answer.choices[0].message.content.strip()
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens > 0
    raw = client.chat.completions.with_raw_response.create(
        model=model, messages=messages, extra_headers={"x-request-id": "sdk-1"}
    )
    assert raw.headers["x-request-id"] == "sdk-1"
    assert raw.headers["x-tollgate-service"]


def streams():
    whole = client.chat.completions.create(model=model, messages=messages)
    text, usages = "", []
    for chunk in client.chat.completions.create(model=model, messages=messages, stream=True):
        usages.append(chunk.usage)
        # Applications index into choices without looking: no chunk may come without one.
        text += chunk.choices[0].delta.content or ""
    assert text == whole.choices[0].message.content, text
    assert not any(usages), usages
    last = None
    for chunk in client.chat.completions.create(
        model=model, messages=messages, stream=True, stream_options={"include_usage": True}
    ):
        last = chunk
    assert last.usage.completion_tokens == whole.usage.completion_tokens


def answers_responses():
    answer = client.responses.create(model=model, input="Hello")
    assert answer.output_text.strip()
    events = [event.type for event in client.responses.create(model=model, input="Hello", stream=True)]
    assert events[0] == "response.created" and events[-1] == "response.completed", events


def embeds():
    answer = client.embeddings.create(model=model, input=["one", "two"])
    assert len(answer.data) == 2
    assert len(answer.data[0].embedding) == len(answer.data[1].embedding) > 0


def completes():
    assert client.completions.create(model=model, prompt="Hello").choices[0].text.strip()


def raises_what_it_should():
    try:
        client.chat.completions.create(model="no-such-model", messages=messages)
        raise AssertionError("an unknown model was served")
    except openai.NotFoundError as error:
        assert error.code == "model_not_found", error.code
        assert error.param == "model"
        assert "no-such-model" in error.message
        assert error.request_id
    try:
        client.models.retrieve("no-such-model")
        raise AssertionError("an unknown model was shown")
    except openai.NotFoundError as error:
        assert error.code == "model_not_found", error.code
    try:
        client.chat.completions.create(
            model=model, messages=messages, extra_headers={"x-sim": "status=429, retry-after=1"}
        )
        raise AssertionError("no RateLimitError")
    except openai.RateLimitError as error:
        assert error.response.headers["retry-after"] == "1"
    try:
        client.chat.completions.create(model=model, messages=messages, extra_headers={"x-sim": "drop"})
        raise AssertionError("no InternalServerError")
    except openai.InternalServerError as error:
        assert error.status_code == 502 and error.code == "upstream_error", error


def notices_a_broken_stream():
    seen = 0
    stream = client.chat.completions.create(
        model=model, messages=messages, stream=True, extra_headers={"x-sim": "close-after=2, itl=30ms"}
    )
    try:
        for _ in stream:
            seen += 1
        raise AssertionError("a broken stream looked whole")
    except openai.APIError as error:
        assert error.code == "upstream_error", error
    assert seen == 3, seen


for check in [
    lists_models,
    chats,
    streams,
    answers_responses,
    embeds,
    completes,
    raises_what_it_should,
    notices_a_broken_stream,
]:
    check()
    print("ok", check.__name__)
