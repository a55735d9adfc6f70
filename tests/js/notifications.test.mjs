// Notifications in a faked browser: permission, subscription, registration, and the service worker.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { afterEach, beforeEach, test } from "node:test";
import vm from "node:vm";

import {
  NotificationsError, closeNotifications, enableNotifications,
} from "../../push/static/push/imgo-notifications.js";

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
  browser.cached = new Map();
  const caches = {
    open: async () => ({
      match: async (path) => browser.cached.get(path)?.clone(),
      put: async (path, answer) => void browser.cached.set(path, answer),
    }),
  };
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
    caches,
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

/** The service worker in a scope of its own. `fire` waits for what an event waits for. */
function startWorker(pages = []) {
  const handlers = new Map();
  const shown = [];
  const self = {
    addEventListener: (name, handler) => handlers.set(name, handler),
    location: { origin: "https://shop.test" },
    registration: {
      showNotification: async (title, options) => void shown.push({ title, ...options }),
      pushManager: { subscribe: async () => browser.fresh },
    },
  };
  const clients = { matchAll: async () => pages };
  const place = new URL("../../push/static/push/imgo-service-worker.js", import.meta.url);
  const scope = { self, clients, caches, fetch, atob, Response, Uint8Array, URL };
  vm.runInNewContext(readFileSync(place, "utf8"), scope);
  const fire = async (name, event) => {
    let waited;
    handlers.get(name)({ ...event, waitUntil: (promise) => (waited = promise) });
    await waited;
  };
  return { fire, shown };
}

test("a replaced subscription is registered, with the one before as the proof", async () => {
  await enableNotifications("/sub", { token: "abc", name: "laptop" });
  const { fire } = startWorker();
  for (const number of [2, 3]) {
    browser.fresh = { toJSON: () => ({ endpoint: `https://push.test/${number}` }) };
    await fire("pushsubscriptionchange", {});
    const { url, method, headers, body } = requests.at(-1);
    assert.deepEqual([url, method, headers.Authorization], ["https://shop.test/sub/devices", "POST", undefined]);
    assert.deepEqual(JSON.parse(body), {
      provider: "webpush",
      subscription: { endpoint: `https://push.test/${number}` },
      name: "laptop",
      replaces: { endpoint: `https://push.test/${number - 1}` },
    });
  }
  browser.answer = new Response("", { status: 401 });
  await assert.rejects(fire("pushsubscriptionchange", {}), { message: "the server answered 401" });
  browser.cached.clear(); // a subscription of the site's own
  const { length } = requests;
  await fire("pushsubscriptionchange", {});
  assert.equal(requests.length, length);
});

test("notifications of acknowledged and retracted messages are closed, late ones too", async () => {
  const closed = [];
  const notification = (id) => ({ data: { imgo: { id } }, close: () => closed.push(id) });
  const all = [...["1", "2", "3"].map(notification), { data: null, close: assert.fail }];
  const worker = Object.assign(new EventTarget(), {
    getRegistrations: async () => [{ getNotifications: async () => all }],
    startMessages() {},
  });
  Object.defineProperty(globalThis, "navigator", { value: { serviceWorker: worker }, configurable: true });
  const handlers = new Map();
  const client = { on: (...pair) => handlers.set(...pair), off: (name) => handlers.delete(name) };
  const end = closeNotifications(client);
  handlers.get("acknowledged")({ ids: ["1", "7"] });
  handlers.get("retracted")({ ids: ["3"] });
  await new Promise(setImmediate);
  assert.deepEqual(closed, ["1", "3"]);
  const page = { postMessage: (data) => worker.dispatchEvent(Object.assign(new Event("message"), { data })) };
  const { fire, shown } = startWorker([page]);
  for (const id of ["7", "8"]) {
    all.push(notification(id));
    await fire("push", { data: { json: () => ({ id, title: "Hi" }) } });
  }
  await new Promise(setImmediate);
  assert.deepEqual([closed, shown.length], [["1", "3", "7"], 2]);
  end();
  assert.equal(handlers.size, 0);
});
