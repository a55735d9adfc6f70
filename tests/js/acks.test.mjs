// Acknowledgement: what is told to the server, what is shown once, what is remembered and where.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { describe, mock, test } from "node:test";

import { Imgo } from "../../push/static/push/imgo.js";
import { settled } from "./fake-socket.mjs";
import { Socket, URL_, clients, make, makeOpen, tick } from "./harness.mjs";

const push = (id, body = id) => ({ op: 5, ver: 2, id, body });
const acked = (socket) => socket.sent.filter(({ op }) => op === 22).map(({ body }) => body);
const shown = (log) => log.of("message").map(({ id }) => id);
const reopen = () => {
  Socket.last.drop();
  tick(30_000);
  Socket.last.accept();
  return Socket.last;
};

/** A Web Storage without a browser. */
function memory() {
  const items = new Map();
  return {
    items,
    getItem: (name) => items.get(name) ?? null,
    setItem: (name, value) => items.set(name, value),
  };
}

describe("acknowledging", () => {
  test("what comes in a short moment is acknowledged together", () => {
    const { client, socket } = makeOpen();
    const told = [];
    client.on("acknowledged", ({ ids }) => told.push(ids));
    socket.receive(push("1"), push("2"));
    tick(99);
    socket.receive(push("3"));
    assert.deepEqual(acked(socket), []);
    tick(1);
    assert.deepEqual(acked(socket), [["1", "2", "3"]]);
    socket.receive(push("4"));
    tick(100);
    assert.deepEqual(acked(socket), [["1", "2", "3"], ["4"]]);
    assert.deepEqual(told, acked(socket));
  });

  test("an ack is a frame of its own, without an answer", () => {
    const { socket } = makeOpen();
    socket.receive(push("9007199254740993"));
    tick(100);
    assert.deepEqual(socket.lastOf(22), { ver: 1, op: 22, seq: 0, body: ["9007199254740993"] });
  });

  test("nothing is sent on a socket that closes, of which browsers complain; it is made good", () => {
    const { log, socket } = makeOpen();
    socket.receive(push("1"));
    socket.readyState = 2; // CLOSING
    tick(100);
    assert.deepEqual(acked(socket), []);
    const next = reopen();
    next.receive(push("1"));
    tick(100);
    assert.deepEqual([acked(next), shown(log)], [[["1"]], ["1"]]);
  });

  test("many go in several frames, none with a body above 1,024 bytes", () => {
    const { socket } = makeOpen();
    const ids = Array.from({ length: 500 }, (_, n) => String(9223372036854775807n - BigInt(n)));
    socket.receive(...ids.map((id) => push(id, null)));
    tick(100);
    assert.ok(acked(socket).every((body) => JSON.stringify(body).length <= 1024));
    assert.deepEqual(acked(socket).flat(), ids);
    assert.equal(acked(socket).length, 11);
  });

  test("no frame of them is larger than the server takes", () => {
    const { socket } = makeOpen({ maxBody: 100 });
    const ids = Array.from({ length: 50 }, (_, n) => String(9223372036854775807n - BigInt(n)));
    socket.receive(...ids.map((id) => push(id, null)));
    tick(100);
    assert.ok(acked(socket).every((body) => JSON.stringify(body).length <= 100));
    assert.deepEqual(acked(socket).flat(), ids);
  });

  test("a message waits for all of its handlers", async () => {
    const { client, socket } = makeOpen();
    let done;
    client.on("message", () => new Promise((resolve) => (done = resolve)));
    client.on("message", () => {});
    socket.receive(push("1"));
    tick(1000);
    await settled();
    assert.deepEqual(acked(socket), []);
    done();
    await settled();
    tick(100);
    assert.deepEqual(acked(socket), [["1"]]);
  });

  for (const [how, handler] of [
    ["throws", () => { throw new Error("no"); }],
    ["rejects", () => Promise.reject(new Error("no"))],
    ["returns a thenable that throws", () => ({ then() { throw new Error("no"); } })],
  ]) {
    test(`a message whose handler ${how} is an error, and comes again with the next session`, async () => {
      const storage = memory();
      const { client, log, socket } = makeOpen({ storage });
      client.on("message", handler);
      socket.receive(push("1"));
      await settled();
      tick(100);
      assert.equal(log.of("error")[0].message, "no");
      assert.deepEqual(acked(socket), []);
      assert.deepEqual([...storage.items.values()], []);
      client.off("message", handler);
      const next = reopen();
      next.receive(push("1"));
      tick(100);
      assert.deepEqual(shown(log), ["1", "1"]);
      assert.deepEqual(acked(next), [["1"]]);
    });
  }

  test("a message that nobody listens to is left for who does", () => {
    const client = new Imgo(URL_, { WebSocket: Socket, storage: null });
    clients.push(client.connect());
    const socket = Socket.last;
    socket.accept();
    socket.receive(push("1"));
    tick(100);
    assert.deepEqual(acked(socket), []);
    const handler = mock.fn();
    client.on("message", handler);
    socket.receive(push("1"));
    tick(100);
    assert.equal(handler.mock.callCount(), 1);
    assert.deepEqual(acked(socket), [["1"]]);
  });

  test("what could not be sent is sent right after the next auth reply", async () => {
    const { client, socket } = makeOpen();
    let done;
    client.on("message", ({ id }) => id === "3" && new Promise((resolve) => (done = resolve)));
    socket.receive(push("1"), push("2"), push("3"));
    socket.drop();
    done();
    await settled();
    tick(500);
    Socket.last.open();
    tick(200);
    assert.deepEqual(acked(Socket.last), []);
    Socket.last.receive({ op: 8, seq: Socket.last.sent[0].seq });
    assert.deepEqual(Socket.last.sent.map(({ op }) => op), [7, 22]);
    assert.deepEqual(acked(Socket.last), [["1", "2", "3"]]);
    tick(1000);
    assert.equal(acked(Socket.last).length, 1);
  });

  test("close() sends what is waiting", () => {
    const { client, socket } = makeOpen();
    socket.receive(push("1"));
    client.close();
    assert.deepEqual(acked(socket), [["1"]]);
    tick(1000);
    assert.equal(acked(socket).length, 1);
  });

  test("a handler that closes the client has handled its message", () => {
    const { client, log, socket } = makeOpen();
    const close = () => client.close();
    client.on("message", close);
    socket.receive(push("1"), push("2"));
    client.off("message", close).connect();
    Socket.last.accept();
    Socket.last.receive(push("1"), push("2"));
    tick(100);
    assert.deepEqual(shown(log), ["1", "2"]);
    assert.deepEqual(acked(Socket.last), [["1"], ["1", "2"]]);
  });

  test("without ack: true nothing is acknowledged, remembered or dropped", () => {
    const storage = memory();
    const { log, socket } = makeOpen({ ack: false, storage });
    socket.receive(push("1"), push("1"), { op: 5, body: 2 }, { op: 5, body: 2 });
    tick(1000);
    assert.equal(log.of("message").length, 4);
    assert.deepEqual(acked(socket), []);
    assert.equal(storage.items.size, 0);
  });

  test("messages without an id, or with a number for one, are shown each time", () => {
    const { log, socket } = makeOpen();
    socket.receive({ op: 5 }, { op: 5 }, push(7), push(7));
    tick(1000);
    assert.equal(log.of("message").length, 4);
    assert.deepEqual(acked(socket), []);
    assert.deepEqual(log.of("error"), []);
  });
});

describe("nothing twice", () => {
  test("what comes again is dropped, and acknowledged again", () => {
    const { log, socket } = makeOpen();
    socket.receive(push("1"));
    const next = reopen();
    next.receive(push("1"), push("2"));
    tick(100);
    assert.deepEqual(shown(log), ["1", "2"]);
    assert.deepEqual(acked(next), [["1"], ["1", "2"]]);
  });

  test("ids need not grow", () => {
    const { log, socket } = makeOpen();
    socket.receive(push("5"), push("3"), push("4"), push("3"));
    assert.deepEqual(shown(log), ["5", "3", "4"]);
  });

  test("what comes again while its handler is at work is dropped", async () => {
    const { client, log, socket } = makeOpen();
    let done;
    client.on("message", () => new Promise((resolve) => (done = resolve)));
    socket.receive(push("1"));
    const next = reopen();
    next.receive(push("1"));
    tick(100);
    assert.deepEqual(shown(log), ["1"]);
    assert.deepEqual(acked(next), []);
    done();
    await settled();
    tick(100);
    assert.deepEqual(acked(next), [["1"]]);
  });

  test("a new page of the same tab knows what the last one has shown", () => {
    const storage = memory();
    const { socket } = makeOpen({ storage });
    socket.receive(push("1"), push("2"));
    socket.drop(); // the page is left: no ack was sent
    const { log, socket: after } = makeOpen({ storage, token: "a newer one" });
    after.receive(push("1"), push("2"), push("3"));
    tick(100);
    assert.deepEqual(shown(log), ["3"]);
    assert.deepEqual(acked(after), [["1", "2", "3"]]);
  });

  test("other servers and other names have memories of their own", () => {
    const storage = memory();
    const see = (options, url) => {
      const { client, log } = make({ storage, ...options }, url);
      client.connect();
      Socket.last.accept();
      Socket.last.receive(push("1"));
      return shown(log).length;
    };
    assert.equal(see({}), 1);
    assert.equal(see({}), 0);
    assert.equal(see({ name: "bob" }), 1);
    assert.equal(see({}, "wss://other.test/sub"), 1);
    assert.equal(see({ name: "bob" }), 0);
    assert.equal(storage.items.size, 3);
  });

  test("the token is not stored", () => {
    const storage = memory();
    makeOpen({ storage, token: "secret-token" }).socket.receive(push("1"));
    assert.equal(storage.items.size, 1);
    assert.doesNotMatch(JSON.stringify([...storage.items]), /secret/);
  });

  test("the newest 2,000 are remembered", () => {
    const storage = memory();
    const { log, socket } = makeOpen({ storage });
    for (let id = 1; id <= 2100; id++) socket.receive(push(String(id)));
    const [stored] = storage.items.values();
    assert.equal(stored.split(" ").length, 2000);
    socket.receive(push("101"), push("100"));
    assert.equal(log.of("message").length, 2101);
  });

  test("as many as a key may have pending come again, and are not shown again", () => {
    const settings = readFileSync(new URL("../../imgo_site/setting_groups/delivery.py", import.meta.url), "utf8");
    const [, most] = settings.match(/OFFLINE_MAX: int = setting\(\s*([\d_]+)/);
    const length = Number(most.replace("_", ""));
    const all = Array.from({ length }, (_, n) => push(String(n + 1)));
    const { log, socket } = makeOpen();
    socket.receive(...all);
    reopen().receive(...all);
    assert.equal(log.of("message").length, length);
  });

  const broken = () => { throw new Error("QuotaExceededError"); };
  for (const [what, storage] of [
    ["can not be read", { getItem: broken, setItem: broken }],
    ["is full", { getItem: () => null, setItem: broken }],
    ["has garbage in it", { getItem: () => "][ \n{}", setItem() {} }],
    ["answers with what is no string", { getItem: () => 7, setItem() {} }],
    ["is turned off", null],
  ]) {
    test(`a storage that ${what} is as good as none`, () => {
      const { log, socket } = makeOpen({ storage });
      socket.receive(push("1"), push("1"));
      tick(100);
      assert.deepEqual(shown(log), ["1"]);
      assert.deepEqual(acked(socket), [["1", "1"]]);
      assert.deepEqual(log.of("error"), []);
    });
  }

  test("the tab's sessionStorage is the default, if the browser gives it away", () => {
    const storage = memory();
    const get = mock.fn(() => storage);
    Object.defineProperty(globalThis, "sessionStorage", { get, configurable: true });
    try {
      makeOpen({ storage: undefined }).socket.receive(push("1"));
      assert.equal([...storage.items.values()][0], "1");
      get.mock.mockImplementation(() => { throw new Error("SecurityError"); });
      const { log, socket } = makeOpen({ storage: undefined });
      socket.receive(push("1"));
      assert.deepEqual(shown(log), ["1"]);
      const asked = get.mock.callCount();
      makeOpen({ storage: null });
      assert.equal(get.mock.callCount(), asked);
    } finally {
      delete globalThis.sessionStorage;
    }
  });
});
