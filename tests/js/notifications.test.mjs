// enableNotifications(): permission, worker, subscription and registration, with a faked browser.
import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";

import { NotificationsError, enableNotifications } from "../../push/static/push/imgo-notifications.js";

const KEY = Buffer.from("the public key of the server");
const saved = {};
let browser; // what the page's browser has, and what was asked of it
let requests;

/** A subscription for a server's key. */
function subscriptionOf(key) {
  return {
    options: { applicationServerKey: Uint8Array.from(key).buffer },
    unsubscribe: async () => {
      browser.known = null;
      return true;
    },
    toJSON: () => ({ endpoint: "https://push.test/1" }),
  };
}

beforeEach(() => {
  browser = { permission: "granted", known: null, worker: { state: "activated" }, scripts: [] };
  requests = [];
  const pushManager = {
    getSubscription: async () => browser.known,
    subscribe: async ({ applicationServerKey, userVisibleOnly }) => {
      assert.equal(userVisibleOnly, true);
      browser.known = subscriptionOf(applicationServerKey);
      return browser.known;
    },
  };
  const register = async (script) => {
    browser.scripts.push(String(script));
    return { active: browser.worker, pushManager };
  };
  const answers = {
    GET: { webpush: { public_key: KEY.toString("base64url") } },
    POST: { id: "17" },
  };
  const fakes = {
    Notification: { requestPermission: async () => browser.permission },
    PushManager: class {},
    location: { href: "https://shop.test/page" },
    navigator: { serviceWorker: { register } },
    fetch: async (url, { method = "GET", ...request }) => {
      requests.push({ url, method, ...request });
      return browser.answer ?? Response.json(answers[method], { status: method === "GET" ? 200 : 201 });
    },
  };
  for (const [name, value] of Object.entries(fakes)) {
    saved[name] = Object.getOwnPropertyDescriptor(globalThis, name);
    Object.defineProperty(globalThis, name, { value, configurable: true });
  }
});

afterEach(() => {
  for (const [name, descriptor] of Object.entries(saved)) {
    delete globalThis[name];
    if (descriptor) Object.defineProperty(globalThis, name, descriptor);
  }
});

const failsWith = (code) => (error) => error instanceof NotificationsError && error.code === code;

test("it registers a new subscription beside the path of the client", async () => {
  const options = { token: async () => "abc", name: "laptop" };
  const { id, subscription } = await enableNotifications("wss://shop.test/imgo/sub", options);
  assert.deepEqual([id, subscription], ["17", browser.known]);
  assert.match(browser.scripts[0], /\/push\/static\/push\/imgo-service-worker\.js$/);
  const [asked, sent] = requests;
  assert.deepEqual([asked.url, asked.method], ["https://shop.test/imgo/sub/devices", "GET"]);
  assert.deepEqual(sent.headers, { "Content-Type": "application/json", Authorization: "Bearer abc" });
  const body = { provider: "webpush", subscription: { endpoint: "https://push.test/1" }, name: "laptop" };
  assert.deepEqual(JSON.parse(sent.body), body);
});

test("it renews a subscription that is there, without a token by the cookie", async () => {
  const known = (browser.known = subscriptionOf(KEY));
  await enableNotifications("/sub/");
  assert.equal(browser.known, known);
  assert.equal(requests[1].url, "https://shop.test/sub/devices");
  assert.equal(requests[1].headers.Authorization, undefined);
});

test("it replaces a subscription of another key", async () => {
  const known = (browser.known = subscriptionOf(Buffer.from("another")));
  await enableNotifications("/sub");
  assert.notEqual(browser.known, known);
});

test("it waits until the worker is active", async () => {
  const worker = (browser.worker = new EventTarget());
  worker.state = "installing";
  const enabling = enableNotifications("/sub");
  await new Promise(setImmediate);
  assert.equal(requests.length, 1);
  worker.state = "activated";
  worker.dispatchEvent(new Event("statechange"));
  assert.equal((await enabling).id, "17");
});

test("what goes wrong has a code", async () => {
  browser.worker = { state: "redundant" };
  await assert.rejects(enableNotifications("/sub"), failsWith("failed"));
  browser.answer = Response.json({ detail: "no Web Push here" }, { status: 404 });
  await assert.rejects(enableNotifications("/sub"), { code: "refused", message: "no Web Push here" });
  browser.permission = "denied";
  await assert.rejects(enableNotifications("/sub"), failsWith("denied"));
  Object.defineProperty(globalThis, "PushManager", { value: undefined, configurable: true });
  await assert.rejects(enableNotifications("/sub"), failsWith("unsupported"));
  await assert.rejects(enableNotifications("/sub", { tokne: "x" }), TypeError);
});
