// Which transport a client uses, when it falls back, and what it remembers of that.
import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, mock, test } from "node:test";

import { EventsServer, until } from "./events-server.mjs";
import { Socket, make } from "./harness.mjs";

const DAY = 86_400_000; // ms
const BOTH = ["websocket", "sse"];

let server;
let kept; // localStorage

beforeEach(async () => {
  mock.timers.reset(); // fetch needs real ones
  server = await EventsServer.start();
  kept = new Map();
  globalThis.localStorage = {
    getItem: (name) => kept.get(name) ?? null,
    setItem: (name, value) => void kept.set(name, String(value)),
  };
});
afterEach(() => {
  server.stop();
  delete globalThis.localStorage;
});

function start(options = {}) {
  const backoff = { min: 5, max: 20 };
  const made = make({ transports: BOTH, backoff, ...options }, server.url);
  made.client.connect();
  return made;
}

/** The WebSocket with this number, from 1 on. */
const socket = (number) => until(() => Socket.sockets[number - 1], `WebSocket ${number}`);
const isOpen = (client) => until(() => client.state === "open", "a session");

/** A client that has fallen back, and the WebSocket with which it makes sure. */
async function fallen(options) {
  const made = start(options);
  for (const number of [1, 2]) (await socket(number)).drop();
  await server.open();
  await isOpen(made.client);
  return { ...made, probe: await socket(3) };
}

describe("falling back", () => {
  test("two WebSockets that never opened, then SSE; blocked ones are remembered for a day", async () => {
    const { client, probe } = await fallen();
    assert.equal(client.transport, "sse");
    probe.drop();
    const [[name, until_]] = await until(() => kept.size && [...kept]);
    assert.equal(name, `imgo ${server.url}`);
    assert.ok(Math.abs(until_ - Date.now() - DAY) < 60_000);
    const { client: next } = start({ transports: undefined, WebSocket: undefined });
    await server.open(2);
    await isOpen(next);
    assert.deepEqual([next.transport, Socket.sockets.length], ["sse", 3]);
  });

  test("after the day a WebSocket is tried first", async () => {
    kept.set(`imgo ${server.url}`, Date.now() - 1);
    const { client } = start();
    (await socket(1)).accept();
    await isOpen(client);
    assert.equal(client.transport, "websocket");
  });

  test("where WebSockets work, the client goes back to them, and remembers nothing", async () => {
    const { client, probe } = await fallen();
    probe.open();
    assert.equal(probe.sent[0].op, 2);
    probe.drop(4505, "the first frame must be auth");
    (await socket(4)).accept();
    await isOpen(client);
    assert.deepEqual([client.transport, [...kept.values()].filter(Number)], ["websocket", []]);
  });

  test("a WebSocket that opens, and lets nothing through, is blocked", async () => {
    const { probe } = await fallen();
    probe.open();
    probe.drop(1006);
    await until(() => kept.size);
  });

  test("a refusal is an answer: the client stays with WebSockets", async () => {
    start();
    for (const number of [1, 2, 3, 4]) (await socket(number)).drop(4401, "why");
    await socket(5);
    assert.equal(server.streams.length, 0);
  });

  test("when SSE does not work either, WebSockets come again", async () => {
    server.refusal = { status: 502 };
    const { log } = start();
    for (const number of [1, 2]) (await socket(number)).drop();
    (await socket(3)).accept();
    await until(() => log.of("open").length === 1);
    assert.deepEqual(log.of("close").map(({ reason }) => reason), ["", "", "HTTP 502", "HTTP 502"]);
  });

  test("a token function that fails is no miss", async () => {
    let failures = 6;
    const token = () => { if (failures-- > 0) throw new Error("away"); };
    const { log } = start({ token });
    (await socket(1)).accept();
    assert.equal(log.of("error").length, 6);
    assert.equal(server.streams.length, 0);
  });

  test("a storage that is forbidden breaks nothing, and this page remembers all the same", async () => {
    Object.defineProperty(globalThis, "localStorage", {
      configurable: true,
      get() { throw new Error("private"); },
    });
    const { client, probe } = await fallen();
    probe.drop();
    await new Promise((resolve) => setImmediate(resolve));
    server.cut();
    await server.open(2);
    await isOpen(client);
    assert.equal(Socket.sockets.length, 3);
  });
});

describe("choosing", () => {
  test("SSE alone needs no WebSocket", async () => {
    const { client } = start({ transports: ["sse"] });
    await server.open();
    await isOpen(client);
    assert.equal(Socket.sockets.length, 0);
  });

  test("WebSocket alone never falls back", async () => {
    start({ transports: ["websocket"] });
    for (const number of [1, 2, 3, 4, 5]) (await socket(number)).drop();
    await socket(6);
    assert.equal(server.streams.length, 0);
  });

  test("with SSE first, WebSocket is the other, and nothing is tried beside it", async () => {
    server.refusal = { status: 502 };
    const { client } = start({ transports: ["sse", "websocket"] });
    (await socket(1)).accept();
    await isOpen(client);
    assert.equal(client.transport, "websocket");
  });

  test("connect() takes the one that is asked for, at once, and it is remembered", async () => {
    const { client, log } = start();
    (await socket(1)).accept();
    client.connect("sse");
    await server.open();
    await until(() => client.transport === "sse" && client.state === "open");
    assert.equal(kept.size, 1);
    assert.equal(Socket.sockets.length, 1, "no WebSocket is tried beside it");
    client.connect("websocket");
    (await socket(2)).accept();
    await until(() => client.transport === "websocket" && client.state === "open");
    assert.deepEqual([...kept.values()], ["0"]);
    client.connect("websocket");
    assert.equal(log.of("open").length, 3, "it has that already");
  });

  for (const transports of [[], ["ws"], ["sse", "tcp"], "sse"]) {
    test(`transports of ${JSON.stringify(transports)} are refused`, () => {
      assert.throws(() => make({ transports }), TypeError);
    });
  }

  test("one that there is not is refused, and the text names those there are", () => {
    const error = { name: "TypeError", message: "transports must be a list of websocket,sse, not tcp" };
    assert.throws(() => make({ transports: ["tcp"] }), error);
    const { client } = make();
    assert.throws(() => client.connect("tcp"), error);
    assert.equal(client.state, "closed");
  });

  for (const [what, options, transports] of [
    ["SSE alone", { transports: ["sse"] }, ["sse", "sse"]],
    ["both", {}, ["websocket", "websocket", "sse", "sse", "websocket"]],
    ["WebSocket alone", { transports: ["websocket"] }, ["websocket", "websocket", "websocket"]],
  ]) {
    test(`with ${what}, a connecting client has the attempt's transport`, async () => {
      server.refusal = { status: 502 };
      const WebSocket = class {
        close() {}
        constructor() { setImmediate(() => this.onclose?.({ code: 1006, reason: "" })); }
      };
      const backoff = { min: 5, max: 20 };
      const { client } = make({ transports: BOTH, backoff, WebSocket, ...options }, server.url);
      const seen = [];
      client.on("state", (state) => state === "connecting" && seen.push(client.transport));
      client.connect();
      await until(() => seen.length >= transports.length);
      assert.deepEqual(seen.slice(0, transports.length), transports);
    });
  }
});
