// How a lost session is found out, by silence or because the page is back.
import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, mock, test } from "node:test";

import { Socket, clients, make, makeOpen, tick } from "./harness.mjs";

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
  let window_; // the events of the document pass by it
  let document_;
  let navigator_;
  const happens = (type) => window_.dispatchEvent(new Event(type));
  beforeEach(() => {
    window_ = new EventTarget();
    document_ = { visibilityState: "visible" };
    navigator_ = { onLine: true };
    globalThis.addEventListener = window_.addEventListener.bind(window_);
    globalThis.removeEventListener = window_.removeEventListener.bind(window_);
    globalThis.document = document_;
    mock.getter(globalThis, "navigator", () => navigator_);
  });
  afterEach(() => {
    clients.forEach((client) => client.close());
    delete globalThis.addEventListener;
    delete globalThis.removeEventListener;
    delete globalThis.document;
  });

  for (const type of ["online", "visibilitychange", "pageshow", "resume"]) {
    test(`${type} makes it reconnect at once`, () => {
      const { client, socket } = makeOpen({ random: () => 1 });
      socket.drop();
      tick(500);
      happens(type);
      tick(1);
      assert.equal(client.state, "connecting");
      assert.equal(Socket.sockets.length, 2);
      happens(type);
      assert.equal(Socket.sockets.length, 2);
    });

    test(`after ${type} a session that did not survive the absence is found out soon`, () => {
      const { client, socket } = makeOpen();
      happens(type);
      assert.equal(socket.lastOf(2).op, 2);
      tick(15_000);
      assert.equal(client.state, "waiting");
    });

    test(`after ${type} a session that did is kept`, () => {
      const { client, socket } = makeOpen();
      happens(type);
      socket.receive({ op: 3 });
      tick(100_000);
      assert.equal(client.state, "open");
    });
  }

  test("a page that is hidden waits", () => {
    const { client, socket } = makeOpen();
    document_.visibilityState = "hidden";
    happens("visibilitychange");
    assert.equal(socket.lastOf(2), undefined);
    socket.drop();
    happens("visibilitychange");
    assert.equal(client.state, "waiting");
  });

  describe("without a network", () => {
    const goOffline = () => {
      navigator_.onLine = false;
      happens("offline");
    };

    test("it says so, and tries at the longest pause alone", () => {
      const { client, log, socket } = makeOpen();
      navigator_.onLine = false;
      socket.drop();
      assert.equal(client.state, "offline");
      assert.deepEqual(log.of("close")[0].delay, 30_000);
      assert.equal(log.of("close")[0].willReconnect, true);
      tick(29_999);
      assert.equal(Socket.sockets.length, 1);
      tick(1);
      assert.equal(client.state, "connecting");
      Socket.last.drop();
      assert.equal(client.state, "offline");
      assert.deepEqual(log.of("state").slice(2), ["offline", "connecting", "offline"]);
    });

    test("it connects at once when there is one again, with the back-off as it was", () => {
      const { client, log } = make({ random: () => 1 });
      navigator_.onLine = false;
      client.connect();
      for (let attempt = 0; attempt < 5; attempt++) {
        Socket.last.drop();
        tick(30_000);
      }
      Socket.last.drop();
      navigator_.onLine = true;
      happens("online");
      tick(500);
      assert.equal(client.state, "connecting");
      Socket.last.drop();
      assert.equal(log.of("close").at(-1).delay, 1000);
    });

    test("a pause becomes a long one, once", () => {
      const { client, log, socket } = makeOpen();
      socket.drop();
      goOffline();
      goOffline();
      happens("visibilitychange");
      assert.equal(client.state, "offline");
      assert.deepEqual(log.of("state").slice(2), ["waiting", "offline"]);
      tick(29_999);
      assert.equal(Socket.sockets.length, 1);
      tick(1);
      assert.equal(Socket.sockets.length, 2);
    });

    test("an open session is kept if it answers", () => {
      const { client, socket } = makeOpen();
      goOffline();
      socket.receive({ op: 3 });
      tick(15_000);
      assert.equal(client.state, "open");
      goOffline();
      tick(3000);
      assert.equal(client.state, "offline");
    });

    test("connect() tries all the same, and close() ends it", () => {
      const { client, socket } = makeOpen();
      navigator_.onLine = false;
      socket.drop();
      client.connect();
      tick(500);
      assert.equal(client.state, "connecting");
      Socket.last.drop();
      client.close();
      happens("online");
      tick(1e6);
      assert.equal(client.state, "closed");
      assert.equal(Socket.sockets.length, 2);
    });
  });

  for (const [how, end] of [
    ["close()", (client) => client.close()],
    ["a final close code", (client, socket) => socket.drop(4500)],
  ]) {
    test(`after ${how} it does not listen to the page any more`, () => {
      const removed = mock.method(globalThis, "removeEventListener");
      const added = mock.method(globalThis, "addEventListener");
      const { client, socket } = makeOpen();
      end(client, socket);
      happens("online");
      assert.equal(Socket.sockets.length, 1);
      const all = ({ mock }) => mock.calls.map((call) => call.arguments);
      assert.equal(all(added).length, 5);
      assert.deepEqual(all(removed), all(added));
    });
  }
});
