// The official client against the functions and against the Edge Function: `scripts/supabase client` starts both.

import assert from "node:assert/strict";
import { test } from "node:test";

import { createClient } from "@supabase/supabase-js";
import ws from "ws";

const { API_URL, FUNCTIONS_URL, PUBLISHABLE_KEY, TOKEN, USER_ID, SCOPE } = process.env;
for (const [name, value] of Object.entries({ API_URL, FUNCTIONS_URL, PUBLISHABLE_KEY, TOKEN, USER_ID, SCOPE })) {
  assert.ok(value, `${name} is not set`);
}

/** Older versions of Node have no WebSocket, which the client wants even if it opens none. */
const client = (url, accessToken = TOKEN) =>
  createClient(url, PUBLISHABLE_KEY, { accessToken: async () => accessToken, realtime: { transport: ws } });

const device = `js-${process.pid}-${Date.now().toString(36)}`;
const envelope = { protocol: 1, user_id: USER_ID, scope: SCOPE, device_id: device };
let epoch;
let mark = 0;

function create(sequence, payload) {
  return {
    ...envelope,
    epoch,
    mark,
    sent_at: new Date().toISOString(),
    operations: [{
      id: `${device}-${sequence}`,
      idempotency_key: `${device}-key-${sequence}`,
      sequence,
      operation: "create",
      entity_type: "pin",
      entity_id: `${device}-${sequence}`,
      payload,
      timestamp: new Date().toISOString(),
    }],
  };
}

test("rpc() with the body as its second argument is a pull", async () => {
  const { data, error, status } = await client(API_URL).rpc("syncline_pull", { ...envelope, limit: 1 });
  assert.equal(error, null);
  assert.equal(status, 200);
  assert.ok(data.epoch && Array.isArray(data.changes));
  epoch = data.epoch;
});

test("rpc() with the body as its second argument is a push, and repeats", async () => {
  const body = create(1, { title: "Leak", n: 1.5, deep: { a: [null, true] } });
  const first = await client(API_URL).rpc("syncline_push", body);
  assert.equal(first.error, null);
  assert.deepEqual([first.data.applied, first.data.mark], [1, 1]);
  const again = await client(API_URL).rpc("syncline_push", { ...body, mark: 1 });
  assert.equal(again.data.results[0].status, "already_processed");
  mark = again.data.mark;
});

test("an argument object is no body: the functions take the body itself", async () => {
  const { error, status } = await client(API_URL).rpc("syncline_push", { p: create(2, {}) });
  assert.equal(status, 400);
  assert.equal(error.code, "invalid_request");
});

test("a problem is the error of the client, with its code", async () => {
  const foreign = { ...create(2, {}), scope: "somebody else's" };
  const { data, error, status } = await client(API_URL).rpc("syncline_push", foreign);
  assert.equal(data, null);
  assert.equal(status, 403);
  assert.equal(error.code, "wrong_scope");
});

test("a token that does not verify is PostgREST's error", async () => {
  const { error, status } = await client(API_URL, "not.a.token").rpc("syncline_pull", envelope);
  assert.deepEqual([status, error.code], [401, "PGRST301"]);
});

test("without a user nothing may be called", async () => {
  const anonymous = createClient(API_URL, PUBLISHABLE_KEY, { realtime: { transport: ws }, global: {
    // The client sends its key as a bearer where nobody is signed in; the gateway of a project takes that away.
    fetch: (url, init) => {
      const headers = new Headers(init.headers);
      headers.delete("authorization");
      return fetch(url, { ...init, headers });
    },
  } });
  const { error, status } = await anonymous.rpc("syncline_pull", envelope);
  assert.deepEqual([status, error.code], [401, "42501"]);
});

test("functions.invoke() reaches the Edge Function", async () => {
  const functions = client(FUNCTIONS_URL).functions;
  const pull = await functions.invoke("sync-operations/v1/pull", { body: { ...envelope, epoch, mark, limit: 10 } });
  assert.equal(pull.error, null);
  assert.ok(pull.data.changes.some((change) => change.record?.title === "Leak"));
  const push = await functions.invoke("sync-operations/v1/push", { body: create(3, { title: "By the function" }) });
  assert.equal(push.error, null);
  assert.equal(push.data.applied, 1);
  mark = push.data.mark;
});

test("a problem of the Edge Function comes with its body", async () => {
  const { data, error } = await client(FUNCTIONS_URL).functions.invoke("sync-operations/v1/push", {
    body: { ...create(4, {}), user_id: "somebody else" },
  });
  assert.equal(data, null);
  assert.equal(error.context.status, 403);
  assert.equal(error.context.headers.get("syncline-protocol"), "1");
  assert.equal((await error.context.json()).code, "wrong_user");
});
