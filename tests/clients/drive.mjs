// Drives a daemon with the official OpenAI client for Node. Usage: node drive.mjs BASE_URL KEY.
import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import OpenAI, { toFile } from "openai";

const [baseURL, apiKey] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${baseURL}/v1`, apiKey, maxRetries: 2, timeout: 60_000 });
const messages = [{ role: "user", content: "My invoice is wrong." }];
const endpoint = "/v1/chat/completions";
const step = (what) => console.log(`-- ${what}`);

async function refused(kind, call, expected = {}) {
  try {
    await call();
  } catch (error) {
    assert.equal(error.constructor, kind, String(error));
    for (const [name, value] of Object.entries(expected)) assert.equal(error[name], value, String(error));
    assert.ok(error.requestID, String(error));
    return;
  }
  assert.fail(`not refused with ${kind.name}`);
}

const line = (n, change = {}) => ({
  custom_id: `r-${n}`, method: "POST", url: endpoint, body: { model: "triage", messages }, ...change,
});
const upload = async (lines, name = "in.jsonl") => {
  const text = lines.map((one) => (typeof one === "string" ? one : JSON.stringify(one)) + "\n").join("");
  return client.files.create({ file: await toFile(Buffer.from(text), name), purpose: "batch" });
};
async function finished(batch) {
  const end = Date.now() + 600_000;
  while (!["completed", "failed", "expired", "cancelled"].includes(batch.status)) {
    assert.ok(Date.now() < end, JSON.stringify(batch));
    await sleep(200);
    batch = await client.batches.retrieve(batch.id);
  }
  return batch;
}

step("models");
const models = [];
for await (const model of client.models.list()) models.push(model.id);
assert.ok(models.includes("triage"));

step("chat");
const { data: answer, response } = await client.chat.completions
  .create({ model: "triage", messages, metadata: { customer: "c-1" } })
  .withResponse();
assert.ok(answer.choices[0].message.content && answer.usage.total_tokens > 0);
assert.ok(["openai", "bedrock"].includes(response.headers.get("x-landbridge-target")));

step("streaming");
const stream = await client.chat.completions.create({
  model: "triage", messages, stream: true, stream_options: { include_usage: true },
});
let text = "";
let last;
for await (const chunk of stream) {
  text += chunk.choices[0]?.delta?.content ?? "";
  last = chunk;
}
assert.ok(text && last.usage.total_tokens > 0 && last.choices.length === 0);

step("tools and structured output");
const parameters = { type: "object", properties: { category: { type: "string" } }, required: ["category"], additionalProperties: false };
const called = await client.chat.completions.create({
  model: "only-openai", messages, tools: [{ type: "function", function: { name: "classify", parameters } }],
});
assert.equal(called.choices[0].message.role, "assistant");
const structured = await client.chat.completions.create({
  model: "only-openai", messages,
  response_format: { type: "json_schema", json_schema: { name: "ticket", strict: true, schema: parameters } },
});
assert.notEqual(structured.choices[0].message.content, undefined);

step("errors");
const wrong = new OpenAI({ baseURL: `${baseURL}/v1`, apiKey: "lbk_wrong", maxRetries: 0 });
await refused(OpenAI.AuthenticationError, () => wrong.models.list(), { code: "invalid_api_key" });
await refused(OpenAI.NotFoundError, () => client.chat.completions.create({ model: "nobody", messages }), { code: "model_not_found" });
await refused(OpenAI.BadRequestError, () => client.chat.completions.create({ model: "triage", messages: [] }), { param: "messages" });
try {
  await client.chat.completions.create({ model: "triage", messages: [{ role: "user", content: "x".repeat(33 << 20) }] });
  assert.fail("an oversized body was taken");
} catch (error) {
  assert.equal(error.status, 413, String(error));
}

step("a batch of 10,000 lines");
const count = 10_000;
const large = await upload(Array.from({ length: count }, (_, n) => line(n)));
let batch = await client.batches.create({ input_file_id: large.id, endpoint, completion_window: "24h" });
batch = await finished(batch);
assert.equal(batch.status, "completed", JSON.stringify(batch));
const output = (await (await client.files.content(batch.output_file_id)).text()).trim().split("\n").map((one) => JSON.parse(one));
assert.equal(new Set(output.map((one) => one.custom_id)).size, count);
assert.equal(output.length, count);

step("malformed lines, cancel, pages");
const bad = await finished(await client.batches.create({
  input_file_id: (await upload([line(0), "{oops", line(0)])).id, endpoint, completion_window: "24h",
}));
assert.deepEqual(bad.errors.data.map((error) => [error.line, error.code]), [[2, "invalid_json_line"], [3, "duplicate_custom_id"]]);
const going = await client.batches.create({ input_file_id: large.id, endpoint, completion_window: "24h" });
assert.ok(["cancelling", "cancelled"].includes((await client.batches.cancel(going.id)).status));
assert.equal((await finished(going)).status, "cancelled");
const ids = [];
for await (const one of client.batches.list({ limit: 1 })) ids.push(one.id);
assert.deepEqual(ids.slice(0, 3), [going.id, bad.id, batch.id]);
assert.ok((await client.files.delete(large.id)).deleted);
console.log("all is well");
