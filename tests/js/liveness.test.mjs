// How a lost session is found out, by silence or because the page is back.
import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, mock, test } from "node:test";

import { Socket, clients, makeOpen, tick } from "./harness.mjs";

describe("heartbeats", () => {
  // Node's mock starts timers of a callback at the end of the tick: step through it.
  const pass = (ms) => {
    while (ms--) tick(1);
  };

  test("they come within the interval, up to a tenth early", () => {
    const { socket } = makeOpen({ random: () => 0 });
    tick(215_999);
    assert.equal(socket.lastOf(2), undefined);
    tick(1);
    assert.deepEqual(socket.lastOf(2), { ver: 1, op: 2, seq: 0, body: {} });
    const later = makeOpen({ random: () => 1 }).socket;
    tick(239_999);
    assert.equal(later.lastOf(2), undefined);
    tick(1);
    assert.equal(later.sent.length, 2);
  });

  test("any frame keeps the session, silence ends it after an interval and 10 s", () => {
    const { client, log, socket } = makeOpen({ heartbeat: 1000, random: () => 1 });
    pass(1000 + 10_999);
    assert.equal(client.state, "open");
    socket.receive({ op: 5, body: "not even a heartbeat reply" });
    pass(1 + 10_999);
    assert.equal(client.state, "open");
    pass(1);
    assert.equal(client.state, "waiting");
    const { code, reason } = log.of("close")[0];
    assert.deepEqual({ code, reason }, { code: 1006, reason: "no answer to a heartbeat" });
    assert.ok(socket.closed && socket.isDetached);
    tick(1000);
    assert.equal(Socket.sockets.length, 2);
  });

  test("a server that answers is never left", () => {
    const { client, socket } = makeOpen({ heartbeat: 1000 });
    for (let beats = 1; beats <= 100; beats++) {
      tick(900);
      assert.equal(socket.sent.length, 1 + beats);
      socket.receive({ op: 3 });
    }
    assert.equal(client.state, "open");
  });
});

describe("the page", () => {
  let window_;
  let document_;
  beforeEach(() => {
    window_ = new EventTarget();
    document_ = Object.assign(new EventTarget(), { visibilityState: "visible" });
    globalThis.addEventListener = window_.addEventListener.bind(window_);
    globalThis.removeEventListener = window_.removeEventListener.bind(window_);
    globalThis.document = document_;
  });
  afterEach(() => {
    clients.forEach((client) => client.close());
    delete globalThis.addEventListener;
    delete globalThis.removeEventListener;
    delete globalThis.document;
  });

  test("it reconnects at once when the page is online or visible again", () => {
    const { client, socket } = makeOpen();
    socket.drop();
    window_.dispatchEvent(new Event("online"));
    assert.equal(client.state, "connecting");
    Socket.last.drop();
    document_.visibilityState = "hidden";
    document_.dispatchEvent(new Event("visibilitychange"));
    assert.equal(client.state, "waiting");
    document_.visibilityState = "visible";
    document_.dispatchEvent(new Event("visibilitychange"));
    assert.equal(client.state, "connecting");
    assert.equal(Socket.sockets.length, 3);
  });

  test("a session that did not survive the absence is found out soon", () => {
    const { client, socket } = makeOpen();
    window_.dispatchEvent(new Event("online"));
    assert.equal(socket.lastOf(2).op, 2);
    tick(15_000);
    assert.equal(client.state, "waiting");
  });

  for (const [how, end] of [
    ["close()", (client) => client.close()],
    ["a final close code", (client, socket) => socket.drop(4500)],
  ]) {
    test(`after ${how} it does not listen to the page any more`, () => {
      const removed = mock.method(globalThis, "removeEventListener");
      const removedOfDocument = mock.method(document_, "removeEventListener");
      const added = mock.method(globalThis, "addEventListener");
      const { client, socket } = makeOpen();
      end(client, socket);
      window_.dispatchEvent(new Event("online"));
      assert.equal(Socket.sockets.length, 1);
      assert.deepEqual(removed.mock.calls[0].arguments, added.mock.calls[0].arguments);
      assert.equal(removedOfDocument.mock.callCount(), 1);
    });
  }
});
