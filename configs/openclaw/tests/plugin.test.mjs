// What the plugin makes a gateway hear, from hooks and calls as OpenClaw 2026.9.6 was seen to make them.
// node --test configs/openclaw/tests

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { after, before, beforeEach, test } from "node:test";

import plugin from "../plugin/index.js";

const read = (path) => JSON.parse(readFileSync(new URL(path, import.meta.url)));
const recorded = read("recorded.json");

/** The gateway: keeps the requests it gets, and answers when it is let. */
const heard = [];
let answer = (response) => response.end("{}");
const server = createServer((request, response) => {
  heard.push({ method: request.method, url: request.url, headers: request.headers });
  request.resume().on("end", () => answer(response));
});

/** An OpenClaw with the plugin in it. */
function openclaw({ registrationMode = "full", providers } = {}) {
  const baseUrl = `http://127.0.0.1:${server.address().port}/v1`;
  const config = { models: { providers: providers ?? { "openclaw-rl": { baseUrl } } } };
  const hooks = {};
  const logged = { info: [], warn: [] };
  let provider;
  plugin.register({
    version: "0.1.0",
    registrationMode,
    config,
    runtime: { modelAuth: { resolveApiKeyForProvider: async () => ({ apiKey: "key" }) } },
    logger: { info: (line) => logged.info.push(line), warn: (line) => logged.warn.push(line) },
    on: (hook, handler) => (hooks[hook] = handler),
    registerProvider: (registered) => (provider = registered),
  });
  const stream = (streamFn) => provider.wrapStreamFn({ config, streamFn });
  return { hooks, logged, provider, stream };
}

/** The headers of a request: those of the transport, under those of the call. */
async function send(client, { heartbeat, call, transport }) {
  if (heartbeat) client.hooks.heartbeat_prompt_contribution({}, heartbeat);
  let headers = { traceparent: "00-1-2-01" };
  if (call) {
    const stream = client.stream((_model, _prompt, options) => options.headers);
    const sent = stream({}, {}, { requestId: call.callId, headers });
    client.hooks.model_call_started(call);
    headers = await sent;
  }
  const { traceparent, ...marks } = { ...client.provider.resolveTransportTurnState(transport).headers, ...headers };
  assert.equal(traceparent, "00-1-2-01", "other headers stay");
  return marks;
}

before(() => new Promise((listening) => server.listen(0, "127.0.0.1", listening)));
after(() => server.close());
beforeEach(() => {
  heard.length = 0;
  answer = (response) => response.end("{}");
});

for (const request of recorded) {
  test(`${request.request} is ${request.sent["X-Turn-Type"]}`, async () => {
    assert.deepEqual(await send(openclaw(), request), request.sent);
  });
}

test("calls of several agents at once keep their own marks", async () => {
  const client = openclaw();
  const sent = await Promise.all(recorded.map((request) => send(client, request)));
  assert.deepEqual(sent, recorded.map((request) => request.sent));
});

test("a call that no hook describes is left to the gateway", async () => {
  const client = openclaw();
  const stream = client.stream((_model, _prompt, options) => options.headers);
  assert.deepEqual(await stream({}, {}, { requestId: "r:model:1" }), { "X-Turn-Type": "auto" });
  assert.deepEqual(await stream({}, {}), { "X-Turn-Type": "auto" });
});

test("the model's answer and its failure pass through", async () => {
  const client = openclaw();
  const events = {};
  assert.equal(await client.stream(async () => events)({}, {}, {}), events);
  const failing = client.stream(async () => {
    throw new Error("the model's own");
  });
  await assert.rejects(failing({}, {}, {}), /the model's own/);
  assert.equal(client.stream(undefined), undefined);
});

test("the end of a session is told once, with the key", async () => {
  for (const reason of ["new", "reset", "idle", "daily", "deleted"]) {
    heard.length = 0;
    await openclaw().hooks.session_end({ sessionId: "s1", reason });
    const [{ method, url, headers }] = heard;
    assert.equal(heard.length, 1, reason);
    assert.deepEqual([method, url], ["POST", "/v1/sessions/end"]);
    assert.deepEqual([headers["x-session-id"], headers.authorization], ["s1", "Bearer key"]);
  }
});

test("a conversation that goes on is not ended", async () => {
  for (const reason of ["shutdown", "restart", "compaction", "unknown", undefined]) {
    await openclaw().hooks.session_end({ sessionId: "s1", reason });
  }
  assert.deepEqual(heard, []);
});

test("the first turn of a reset session waits until the gateway knows of the end", async () => {
  const client = openclaw();
  const held = new Promise((arrived) => (answer = arrived));
  const ended = client.hooks.session_end({ sessionId: recorded[0].call.sessionId, reason: "new" });
  const response = await held;
  const order = [];
  const turn = send(client, recorded[0]).then(() => order.push("this session"));
  await send(client, recorded[2]).then(() => order.push("another session"));
  response.end("{}");
  await Promise.all([ended, turn]);
  assert.deepEqual(order, ["another session", "this session"]);
});

test("a gateway that is away or refuses is one warning, and no turn's failure", async () => {
  const away = openclaw({ providers: { "openclaw-rl": { baseUrl: "http://127.0.0.1:9/v1" } } });
  await away.hooks.session_end({ sessionId: "s1", reason: "new" });
  assert.equal(away.logged.warn.length, 1);

  answer = (response) => response.writeHead(404).end();
  const refused = openclaw();
  await refused.hooks.session_end({ sessionId: "s1", reason: "new" });
  assert.match(refused.logged.warn[0], /404/);
});

test("one line is logged at load, and none where OpenClaw only looks", () => {
  assert.equal(openclaw().logged.info.length, 1);
  assert.deepEqual(openclaw({ registrationMode: "discovery" }).logged, { info: [], warn: [] });
  const without = openclaw({ providers: {} });
  assert.deepEqual([without.logged.info.length, without.logged.warn.length], [0, 1]);
});

test("the manifest and the package tell the same version, id and provider", () => {
  const manifest = read("../plugin/openclaw.plugin.json");
  assert.equal(manifest.version, read("../plugin/package.json").version);
  assert.equal(manifest.id, plugin.id);
  assert.deepEqual(manifest.providers, [openclaw().provider.id]);
});
