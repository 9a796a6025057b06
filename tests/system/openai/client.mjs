// The official client against brigade serve: node client.mjs BASE_URL API_KEY. Exits 0 when everything holds.
import assert from "node:assert/strict";
import OpenAI from "openai";

const [baseURL, apiKey] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const messages = [{ role: "user", content: "Once upon a time" }];
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

async function models() {
  const list = await client.models.list();
  assert.equal(list.data.length, 1);
  const one = await client.models.retrieve(list.data[0].id);
  assert.equal(one.object, "model");
  return one.id;
}

async function whole(model) {
  const got = await client.chat.completions.create({ model, messages, max_completion_tokens: 12, temperature: 0, n: 2 });
  assert.equal(got.choices.length, 2);
  assert.equal(got.choices[0].message.role, "assistant");
  assert.equal(got.choices[0].message.content, got.choices[1].message.content);
  assert.equal(got.choices[0].finish_reason, "length");
  assert.equal(got.usage.completion_tokens, 24);
  assert.match(got.system_fingerprint, /^fp_/);
  const text = await client.completions.create({ model, prompt: "Once upon a time", max_tokens: 12, temperature: 0 });
  assert.equal(text.choices[0].text, got.choices[0].message.content);
}

async function streamed(model) {
  const ask = { model, messages, max_completion_tokens: 20, seed: 3 };
  const want = await client.chat.completions.create(ask);
  const stream = await client.chat.completions.create({ ...ask, stream: true, stream_options: { include_usage: true } });
  let text = "", usage, finish;
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta?.content ?? "";
    finish = chunk.choices[0]?.finish_reason ?? finish;
    usage = chunk.usage ?? usage;
  }
  assert.equal(text, want.choices[0].message.content);
  assert.equal(finish, want.choices[0].finish_reason);
  assert.deepEqual(usage, want.usage);
  const gathered = await client.chat.completions.stream(ask).finalChatCompletion();
  assert.equal(gathered.choices[0].message.content, text);
  const plain = await client.completions.create({ model, prompt: "Once", max_tokens: 5, temperature: 0, stream: true });
  let parts = "";
  for await (const chunk of plain) parts += chunk.choices[0].text;
  assert.ok(parts.startsWith(" upon a time"), parts);
}

async function fields(model) {
  const create = (more) => client.chat.completions.create({ model, messages, max_completion_tokens: 30, temperature: 0, ...more });
  const free = (await create({})).choices[0].message.content;
  const stop = [free.slice(20, 24), free.slice(10, 16)]; // the second comes first, and begins within a token
  let text = "", finish;
  for await (const chunk of await create({ stop, stream: true })) {
    text += chunk.choices[0].delta.content ?? "";
    finish = chunk.choices[0].finish_reason ?? finish;
  }
  assert.equal(text, free.slice(0, free.indexOf(stop[1])));
  assert.equal(finish, "stop");
  assert.equal((await create({ stop: stop[1] })).choices[0].message.content, text);
  const told = [{ role: "developer", content: "Tell." }, { role: "user", content: [{ type: "text", text: "Once" }] },
    { role: "assistant", content: " upon" }, { role: "user", content: "a time" }];
  const system = told.map((m) => (m.role === "developer" ? { ...m, role: "system" } : m));
  assert.equal((await create({ messages: told })).choices[0].message.content, (await create({ messages: system })).choices[0].message.content);
  const seeded = () => create({ temperature: 1.3, seed: 9, n: 3, user: "u", frequency_penalty: 0.5, presence_penalty: -0.5, top_p: 0.9 });
  const three = (await seeded()).choices.map((c) => c.message.content);
  assert.deepEqual((await seeded()).choices.map((c) => c.message.content), three);
  const parts = ["", "", ""];
  for await (const chunk of await client.chat.completions.create({ model, messages, max_tokens: 30, temperature: 1.3, seed: 9, n: 3,
    frequency_penalty: 0.5, presence_penalty: -0.5, top_p: 0.9, stream: true }))
    for (const c of chunk.choices) parts[c.index] += c.delta.content ?? "";
  assert.deepEqual(parts, three);
  const plain = await client.completions.create({ model, prompt: "Once", max_tokens: 4, temperature: 0, logprobs: 2 });
  const { tokens, token_logprobs, top_logprobs, text_offset } = plain.choices[0].logprobs;
  assert.equal(tokens.join(""), plain.choices[0].text);
  assert.ok(tokens.every((t, i) => top_logprobs[i][t] === token_logprobs[i] && Object.keys(top_logprobs[i]).length === 2));
  assert.deepEqual(text_offset, tokens.map((_, i) => tokens.slice(0, i).join("").length));
  const banned = await fetch(baseURL.replace("/v1", "/tokenize"), { method: "POST", headers: { Authorization: `Bearer ${apiKey}` },
    body: JSON.stringify({ content: tokens[0], add_special: false }) }).then((r) => r.json());
  const logit_bias = Object.fromEntries(banned.ids.map((id) => [id, -100]));
  const other = await client.completions.create({ model, prompt: "Once", max_tokens: 4, temperature: 0, logprobs: 1, logit_bias });
  assert.notEqual(other.choices[0].text, plain.choices[0].text);
  const echo = await client.completions.create({ model, prompt: ["Once", "A dog"], max_tokens: 2, temperature: 0, echo: true, best_of: 1 });
  assert.deepEqual(echo.choices.map((c) => c.text.startsWith(["Once", "A dog"][c.index])), [true, true]);
}

async function logprobs(model) {
  const ask = { model, messages, max_completion_tokens: 5, temperature: 0, logprobs: true, top_logprobs: 4 };
  const got = await client.chat.completions.create(ask);
  const content = got.choices[0].logprobs.content;
  assert.equal(content.length, 5);
  assert.equal(content.map((t) => t.token).join(""), got.choices[0].message.content);
  assert.ok(content.every((t) => t.top_logprobs.length === 4 && t.top_logprobs[0].token === t.token));
  const entries = [];
  for await (const chunk of await client.chat.completions.create({ ...ask, stream: true }))
    entries.push(...(chunk.choices[0]?.logprobs?.content ?? []));
  assert.deepEqual(entries, content);
}

async function errors(model) {
  const refused = async (fields, kind, param) => {
    await assert.rejects(client.chat.completions.create({ model, messages, ...fields }), (e) => {
      assert.ok(e instanceof kind, `${e}`);
      if (param) assert.equal(e.param, param);
      return true;
    });
  };
  await refused({ tools: [{ type: "function", function: { name: "f" } }] }, OpenAI.BadRequestError, "tools");
  await refused({ response_format: { type: "json_object" } }, OpenAI.BadRequestError, "response_format");
  await refused({ messages: [{ role: "user", content: [{ type: "image_url", image_url: { url: "x" } }] }] }, OpenAI.BadRequestError,
    "messages[0].content[0]");
  await refused({ messages: [{ role: "tool", tool_call_id: "x", content: "x" }] }, OpenAI.BadRequestError, "messages[0].role");
  await refused({ store: true }, OpenAI.BadRequestError, "store");
  await refused({ frobnicate: 1 }, OpenAI.BadRequestError, "frobnicate");
  await refused({ stream: true, top_logprobs: 2 }, OpenAI.BadRequestError, "top_logprobs");
  await assert.rejects(client.completions.create({ model, prompt: "x", suffix: "y" }), (e) => e.status === 400 && e.param === "suffix");
  await refused({ temperature: 9 }, OpenAI.BadRequestError, "temperature");
  await assert.rejects(client.chat.completions.create({ model, messages: [{ role: "user", content: "dog ".repeat(3000) }] }), (e) => {
    assert.equal(e.code, "context_length_exceeded");
    assert.equal(e.type, "invalid_request_error");
    assert.ok(e.message.match(/\d+/g).length >= 3, e.message); // the status, and both numbers
    return e instanceof OpenAI.BadRequestError;
  });
  const stranger = new OpenAI({ baseURL, apiKey: "sk-wrong", maxRetries: 0 });
  await assert.rejects(stranger.models.list(), OpenAI.AuthenticationError);
  await assert.rejects(client.models.retrieve("another"), OpenAI.NotFoundError);
}

async function aborts(model) {
  const ask = { model, messages, max_completion_tokens: 400, n: 8, stream: true };
  for (let i = 0; i < 8; i++) {
    const stream = await client.chat.completions.create(ask);
    let n = 0;
    for await (const chunk of stream) {
      assert.ok(chunk.id);
      if (++n > i) break; // leaves: the client closes the connection
    }
    const stop = new AbortController();
    const asked = client.chat.completions.create({ ...ask, stream: false }, { signal: stop.signal });
    await sleep(i);
    stop.abort();
    await assert.rejects(asked, OpenAI.APIUserAbortError);
  }
}

async function many(model) {
  const ask = (i) => client.chat.completions.create({ model, messages, max_completion_tokens: 15, seed: i, temperature: 1.2 });
  const alone = await ask(0);
  const together = await Promise.all(Array.from({ length: 32 }, (_, i) => ask(i)));
  assert.equal(together[0].choices[0].message.content, alone.choices[0].message.content);
  assert.ok(new Set(together.map((a) => a.choices[0].message.content)).size > 1);
}

const model = await models();
for (const check of [whole, streamed, fields, logprobs, errors, aborts, many]) {
  await check(model);
  console.log(`ok ${check.name}`);
}
