"""Drives a daemon with the official OpenAI client for Python, and with LangChain's.

Usage: drive.py BASE_URL KEY. Ends with the first thing that is not as a client of the original expects.
"""

import io
import json
import sys
import time

import openai
from langchain_openai import ChatOpenAI

base_url, key = sys.argv[1], sys.argv[2]
client = openai.OpenAI(base_url=base_url + "/v1", api_key=key, max_retries=2, timeout=60)
HI = [{"role": "user", "content": "My invoice is wrong."}]
PATH = "/v1/chat/completions"


def step(what):
    print(f"-- {what}", flush=True)


def refused(kind, call, **expected):
    try:
        call()
    except kind as error:
        assert type(error) is kind, f"{type(error)} instead of {kind}"
        for name, value in expected.items():
            assert getattr(error, name) == value, f"{name}: {getattr(error, name)} instead of {value}: {error}"
        assert error.request_id, error
        return error
    raise AssertionError(f"not refused with {kind.__name__}")


def upload(lines, name="in.jsonl"):
    text = "".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines)
    return client.files.create(file=(name, io.BytesIO(text.encode())), purpose="batch")


def line(n, **body):
    return {"custom_id": f"r-{n}", "method": "POST", "url": PATH, "body": {"model": "triage", "messages": HI, **body}}


def finished(batch, seconds=120):
    end = time.monotonic() + seconds
    while batch.status not in ("completed", "failed", "expired", "cancelled"):
        assert time.monotonic() < end, batch
        time.sleep(0.2)
        batch = client.batches.retrieve(batch.id)
    return batch


step("models")
assert "triage" in [model.id for model in client.models.list()]
assert client.models.retrieve("triage").object == "model"

step("chat")
raw = client.chat.completions.with_raw_response.create(
    model="triage", messages=HI, user="u-1", metadata={"customer": "c-1"}, extra_headers={"x-landbridge-metadata-tier": "gold"}
)
assert raw.headers["x-landbridge-target"] in ("openai", "bedrock") and raw.headers["x-landbridge-job"].startswith("job_")
answer = raw.parse()
assert answer.choices[0].message.content and answer.usage.total_tokens > 0 and answer._request_id, answer

step("chat at a fixed pipeline")
fixed = openai.OpenAI(base_url=base_url + "/p/triage/v1", api_key=key)
assert fixed.chat.completions.create(model="anything", messages=HI).choices[0].finish_reason == "stop"

step("streaming")
chunks = list(client.chat.completions.create(model="triage", messages=HI, stream=True, stream_options={"include_usage": True}))
text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
assert text and chunks[-1].usage.total_tokens > 0 and not chunks[-1].choices, chunks[-1]
assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
assert all(chunk.usage is None for chunk in chunks[:-1])
plain = list(client.chat.completions.create(model="triage", messages=HI, stream=True))
assert all(chunk.choices for chunk in plain)
with client.chat.completions.create(model="triage", messages=HI, stream=True) as stream:
    next(iter(stream))

step("tools")
TOOL = {"type": "function", "function": {"name": "classify", "description": "Classify a ticket.", "parameters": {
    "type": "object", "properties": {"category": {"type": "string"}}, "required": ["category"]}}}
called = client.chat.completions.create(
    model="only-openai", messages=HI, tools=[TOOL], tool_choice={"type": "function", "function": {"name": "classify"}}
)
assert called.choices[0].message.role == "assistant", called

step("structured output")
SCHEMA = {"type": "json_schema", "json_schema": {"name": "ticket", "strict": True, "schema": {
    "type": "object", "properties": {"category": {"type": "string"}}, "required": ["category"], "additionalProperties": False}}}
structured = client.chat.completions.create(model="only-openai", messages=HI, response_format=SCHEMA)
assert structured.choices[0].message.content is not None, structured

step("LangChain")
chain = ChatOpenAI(model="triage", base_url=base_url + "/v1", api_key=key)
assert chain.invoke("My invoice is wrong.").content
assert "".join(piece.content for piece in chain.stream("My invoice is wrong."))

step("errors")
wrong = openai.OpenAI(base_url=base_url + "/v1", api_key="lbk_wrong", max_retries=0)
refused(openai.AuthenticationError, lambda: wrong.models.list(), code="invalid_api_key", type="invalid_request_error")
refused(openai.NotFoundError, lambda: client.chat.completions.create(model="nobody", messages=HI), code="model_not_found", param="model")
refused(openai.BadRequestError, lambda: client.chat.completions.create(model="triage", messages=[]), param="messages")
refused(
    openai.BadRequestError,
    lambda: client.chat.completions.create(model="triage", messages=HI, stream_options={"include_usage": True}),
    param="stream_options",
)
try:
    client.chat.completions.create(model="triage", messages=[{"role": "user", "content": "x" * (33 << 20)}])
    raise AssertionError("an oversized body was taken")
except openai.APIStatusError as error:
    assert error.status_code == 413 and error.code == "body_too_large", error

step("files")
small = upload([line(0)], "small.jsonl")
assert client.files.retrieve(small.id).filename == "small.jsonl" and small.purpose == "batch" and small.status == "processed"
assert json.loads(client.files.content(small.id).text) == line(0)
kept = client.files.create(file=("k.jsonl", b"x"), purpose="batch", expires_after={"anchor": "created_at", "seconds": 3600})
assert kept.expires_at - kept.created_at == 3600
others = [upload([line(n)]).id for n in range(5)]
listed = [file.id for file in client.files.list(limit=2, purpose="batch")]
assert len(listed) == len(set(listed)) and set(others + [small.id, kept.id]) <= set(listed), listed
for file in others + [kept.id]:
    assert client.files.delete(file).deleted
refused(openai.NotFoundError, lambda: client.files.retrieve(others[0]), code="file_not_found")

step("a batch of 10,000 lines")
LINES = 10_000
began = time.monotonic()
large = upload(line(n) for n in range(LINES))
batch = client.batches.create(input_file_id=large.id, endpoint=PATH, completion_window="24h", metadata={"run": "7"})
assert batch.status == "validating" and batch.request_counts.total == 0
batch = finished(batch, 600)
assert batch.status == "completed" and batch.metadata == {"run": "7"}, batch
assert batch.request_counts.completed == LINES and batch.request_counts.failed == 0, batch
assert batch.usage.total_tokens > 0 and batch.error_file_id is None
output = [json.loads(text) for text in client.files.content(batch.output_file_id).text.splitlines()]
assert sorted(one["custom_id"] for one in output) == sorted(f"r-{n}" for n in range(LINES))
assert all(one["response"]["status_code"] == 200 and one["error"] is None for one in output)
print(f"   {time.monotonic() - began:.1f} s")

step("a batch of malformed lines")
bad = finished(client.batches.create(
    input_file_id=upload([line(0), "{oops\n", line(0), {**line(1), "url": "/v1/embeddings"}]).id, endpoint=PATH, completion_window="24h"))
assert bad.status == "failed", bad
assert [(error.line, error.code) for error in bad.errors.data] == [
    (2, "invalid_json_line"), (3, "duplicate_custom_id"), (4, "invalid_url")], bad.errors

step("a cancelled batch")
going = client.batches.create(input_file_id=large.id, endpoint=PATH, completion_window="24h")
assert client.batches.cancel(going.id).status in ("cancelling", "cancelled")
assert finished(going).status == "cancelled"

step("batches in pages")
ids = [one.id for one in client.batches.list(limit=1)]
assert ids[:3] == [going.id, bad.id, batch.id], ids
refused(openai.BadRequestError, lambda: client.batches.create(
    input_file_id=small.id, endpoint="/v1/embeddings", completion_window="24h"), param="endpoint", code="endpoint_not_supported")
print("all is well")
