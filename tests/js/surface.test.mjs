// The options and the events.
import assert from "node:assert/strict";
import { describe, mock, test } from "node:test";

import { Imgo } from "../../push/static/push/imgo.js";
import { settled } from "./fake-socket.mjs";
import { Socket, URL_, clients, make, makeOpen, tick } from "./harness.mjs";

describe("options", () => {
  const urlOf = (url) => {
    make({}, url).client.connect();
    return Socket.last.url;
  };

  test("http becomes ws, and a relative URL belongs to the page", () => {
    assert.equal(urlOf("https://example.test/sub"), "wss://example.test/sub");
    assert.equal(urlOf("ws://example.test:8090/sub?x=1"), "ws://example.test:8090/sub?x=1");
    globalThis.location = { href: "http://page.test:8000/demo/" };
    try {
      assert.equal(urlOf("/sub"), "ws://page.test:8000/sub");
    } finally {
      delete globalThis.location;
    }
  });

  for (const [what, options] of [
    ["a heartbeat of 0", { heartbeat: 0 }],
    ["a heartbeat that is not a number", { heartbeat: NaN }],
    ["a timeout that setTimeout can not do", { timeout: 2 ** 31 }],
    ["a back-off of 0", { backoff: { min: 0 } }],
    ["a token that is no string", { token: 42 }],
    ["a room without a name", { rooms: [""] }],
    ["a number instead of rooms", { rooms: 5 }],
    ["a maxBody that is not a number", { maxBody: "a" }],
    ["a maxBody of 0", { maxBody: 0 }],
    ["a share that is true", { share: true }],
    ["a share that is a number", { share: 5 }],
    ["a share without a text", { share: "" }],
    ["an option that there is not", { maxbody: 1 }],
    ["an ack that is a number", { ack: 1 }],
    ["an ack that is a text", { ack: "false" }],
    ["a name that is a number", { name: 5 }],
    ["a name that is null", { name: null }],
    ["a storage that is a text", { storage: "sessionStorage" }],
    ["a storage without setItem", { storage: { getItem: () => null } }],
  ]) {
    test(`${what} is refused at once`, () => assert.throws(() => make(options), TypeError));
  }

  for (const transports of ["sse", "", 5, [], ["sse", "tcp"]]) {
    test(`transports ${JSON.stringify(transports)} are refused with what is right`, () => {
      const refusal = { name: "TypeError", message: /must be a list of websocket,sse/ };
      assert.throws(() => make({ transports }), refusal);
    });
  }

  test("one string instead of rooms is refused with what is right", () => {
    const refusal = { name: "TypeError", message: "rooms must be a list, not lobby" };
    assert.throws(() => make({ rooms: "lobby" }), refusal);
  });

  test("an URL that is none is refused at once", () => {
    assert.throws(() => make({}, "/sub"), TypeError);
  });
});

describe("events", () => {
  test("a handler that throws or rejects is reported, and the others go on", async () => {
    const { client, log, socket } = makeOpen();
    client.on("message", () => { throw new Error("thrown"); });
    client.on("message", async () => { throw new Error("rejected"); });
    client.on("message", () => { throw "no Error"; });
    const last = mock.fn();
    client.on("message", last);
    socket.receive({ op: 5, body: 1 }, { op: 5, body: 2 });
    await settled();
    assert.equal(last.mock.callCount(), 2);
    assert.equal(client.state, "open");
    const messages = log.of("error").map(({ message }) => message).sort();
    const each = ["not an Error", "rejected", "thrown"];
    assert.deepEqual(messages, each.flatMap((message) => [message, message]));
  });

  for (const event of ["state", "open", "close"]) {
    test(`a ${event} handler that throws breaks nothing`, () => {
      const { client, log } = make();
      client.on(event, () => { throw new Error(event); });
      client.connect();
      Socket.last.accept();
      Socket.last.drop();
      tick(500);
      Socket.last.accept();
      assert.equal(client.state, "open");
      assert.ok(log.of("error").length >= 1);
    });
  }

  test("an error handler that throws is reported on the console, once", () => {
    const console_ = mock.method(console, "error", () => {});
    const { client, socket } = makeOpen();
    client.on("error", () => { throw new Error("again"); });
    socket.receiveRaw("garbage");
    assert.equal(console_.mock.callCount(), 1);
    assert.equal(client.state, "waiting");
  });

  test("an error without a handler is reported on the console", () => {
    const console_ = mock.method(console, "error", () => {});
    const client = new Imgo(URL_, { WebSocket: Socket });
    clients.push(client);
    client.connect();
    Socket.last.receiveRaw("garbage");
    assert.equal(console_.mock.callCount(), 1);
  });

  test("all handlers see events in the same order, whatever one of them does", () => {
    const client = new Imgo(URL_, { WebSocket: Socket });
    clients.push(client);
    const seen = [];
    client.on("state", (state) => state === "waiting" && client.connect());
    client.on("state", (state) => seen.push(state));
    client.connect();
    Socket.last.accept();
    Socket.last.drop();
    tick(500);
    assert.deepEqual(seen, ["connecting", "open", "waiting", "connecting"]);
  });

  test("off ends it, and an unknown event is a mistake", () => {
    const { client, socket } = makeOpen();
    const handler = mock.fn();
    client.on("message", handler).off("message", handler);
    socket.receive({ op: 5 });
    assert.equal(handler.mock.callCount(), 0);
    assert.throws(() => client.on("mesage", handler), TypeError);
    assert.throws(() => client.off("mesage", handler), TypeError);
  });
});
