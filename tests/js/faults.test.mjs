// Whatever goes wrong: it is told, promises are kept, attempts are few, and nothing gathers.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { describe, mock, test } from "node:test";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

import { Imgo, ImgoError } from "../../push/static/push/imgo.js";
import { settled } from "./fake-socket.mjs";
import { Socket, make, makeOpen, tick } from "./harness.mjs";

const root = new URL("../../", import.meta.url);
const read = (path) => readFileSync(new URL(path, root), "utf8");
const codes = [...read("docs/protocol.md").matchAll(/^\| (4\d\d\d) \|/gm)].map(([, code]) => +code);
const vectors = JSON.parse(read("docs/frames.json"));

const HOUR = 3_600_000; // ms
// Drawn evenly up to a ceiling of 30 s, a pause is 15 s in the mean: 240 in an hour, and some.
const MANY = 300;
const MOST = 1 + HOUR / 500; // with the shortest pause each time

/** Numbers that look random, the same in every run. */
function dice(seed = 1) {
  return () => (seed = (seed * 16_807) % 2_147_483_647) / 2_147_483_647;
}

/** Let an hour pass, in which `react` plays the server's part; how many attempts were made. */
async function hour(client, attempts, react = () => {}) {
  let reacted;
  client.connect();
  for (let passed = 0; passed < HOUR; passed += 250) {
    await settled();
    if (Socket.last !== reacted) react((reacted = Socket.last));
    tick(250);
  }
  return attempts();
}

describe("no hot loop", () => {
  const opened = () => Socket.sockets.length;
  const whileFailing = [
    ["nobody listens", (socket) => socket.drop(1006)],
    ["the connection opens and closes", (socket) => { socket.open(); socket.drop(1006); }],
    ["a session opens and closes", (socket) => { socket.accept(); socket.drop(1006); }],
    ["the auth frame is never answered", (socket) => socket.open()],
    ["binary comes", (socket) => { socket.accept(); socket.receiveRaw(new ArrayBuffer(8)); }],
    ...[1000, 1001, 1002, 1007, 1009, 1011, 1012, 1013, 1015, 3000].map((code) => [
      `the session is closed with ${code}`,
      (socket) => { socket.accept(); socket.drop(code); },
    ]),
    ...codes.filter((code) => code < 4500).map((code) => [
      `the auth is refused with ${code}`,
      (socket) => { socket.open(); socket.drop(code, "no"); },
    ]),
    ...vectors.server_text_bad.map(({ name, text }) => [
      `the server says: ${name}`,
      (socket) => { socket.accept(); socket.receiveRaw(text); },
    ]),
  ];
  for (const [what, react] of whileFailing) {
    test(`while ${what} there are few attempts`, async () => {
      const { client } = make({ random: dice() });
      const attempts = await hour(client, opened, react);
      assert.ok(attempts > 50 && attempts < MANY, `${attempts} attempts in an hour`);
      client.close();
    });
  }

  test("with the worst of luck they are bounded all the same", async () => {
    const { client } = make({ random: () => 0 });
    assert.ok((await hour(client, opened, (socket) => socket.drop(4401))) <= MOST);
  });

  for (const code of codes.filter((code) => code >= 4500)) {
    test(`after ${code} there is one`, async () => {
      const { client, log } = make({ random: dice() });
      const react = (socket) => { socket.accept(); socket.drop(code, "no"); };
      assert.equal(await hour(client, opened, react), 1);
      assert.equal(client.state, "closed");
      assert.deepEqual(log.of("close")[0].willReconnect, false);
    });
  }

  for (const [what, token] of [
    ["throws", () => { throw new Error("no token today"); }],
    ["rejects", () => Promise.reject(new Error("no token today"))],
    ["never answers", () => new Promise(() => {})],
    ["answers with what is no token", () => ({})],
  ]) {
    test(`a token function that ${what} is asked now and then`, async () => {
      const asked = mock.fn(token);
      const { client, log } = make({ token: asked, random: dice() });
      const attempts = await hour(client, () => asked.mock.callCount());
      assert.ok(attempts > 50 && attempts < MANY, `${attempts} attempts in an hour`);
      assert.ok(Math.abs(log.of("close").length - attempts) <= 1);
      assert.equal(Socket.sockets.length, 0);
      client.close();
    });
  }

  test("handlers that connect each time change nothing of that", async () => {
    const token = mock.fn(() => { throw new Error("no token today"); });
    const { client } = make({ token });
    for (const event of ["state", "close", "error"]) client.on(event, () => client.connect());
    assert.ok((await hour(client, () => token.mock.callCount())) <= MOST);
    client.close();
  });

  test("handlers that connect after each close come to no loop, whatever the code", () => {
    for (const code of [...codes, 1000]) {
      const { client } = make();
      const connect = () => client.connect();
      client.on("close", connect);
      connect();
      const first = Socket.last;
      first.accept();
      first.drop(code);
      assert.equal(client.state, "waiting");
      tick(499);
      assert.equal(Socket.last, first);
      tick(1);
      assert.notEqual(Socket.last, first);
      client.off("close", connect);
      client.close();
      assert.equal(client.state, "closed");
    }
  });

  test("the codes of the protocol's page are all there are", () => {
    const defined = read("push/wire/close_codes.py").matchAll(/^ {4}[A-Z_]+ = (4\d\d\d), /gm);
    assert.deepEqual(codes, [...defined].map(([, code]) => +code));
  });
});

describe("promises", () => {
  const questions = {
    request: (client) => client.request({ q: 1 }),
    join: (client) => client.join("a"),
    leave: (client) => client.leave("a"),
  };
  const endings = {
    "garbage comes": (socket) => socket.receiveRaw("hello"),
    "the connection is lost": (socket) => socket.drop(1006),
    "the server closes for good": (socket) => socket.drop(4500, "malformed frame"),
    "the server says goodbye and no more": (socket) => { socket.receive({ op: 6 }); tick(10_000); },
    "no answer comes": () => tick(15_000),
  };
  for (const [name, ask] of Object.entries(questions)) {
    for (const [what, end] of Object.entries(endings)) {
      test(`${name} is settled when ${what}`, async () => {
        const { client, socket } = makeOpen();
        const settling = ask(client).catch((error) => error);
        end(socket);
        const outcome = await settling;
        if (outcome !== false) {
          assert.ok(outcome instanceof ImgoError);
          assert.ok(["closed", "timeout"].includes(outcome.code), outcome.code);
        }
      });
    }

    for (const body of [null, 7, "text", [], { error: null }, { error: "no" }, { error: 7 }]) {
      test(`${name} is settled by an answer of ${JSON.stringify(body)}`, async () => {
        const { client, socket } = makeOpen();
        const settling = ask(client).catch((error) => error);
        const { op, seq } = socket.sent.at(-1);
        socket.receive({ op: op + 1, seq, body });
        const outcome = await settling;
        if (outcome instanceof Error) assert.ok(outcome instanceof ImgoError);
        assert.equal(client.state, "open");
      });
    }
  }

  test("a goodbye with garbage in it is one all the same", () => {
    for (const body of [null, 7, "bye", [], { code: "4500" }, { code: {} }, { reconnect: "no" }]) {
      const { client, log, socket } = makeOpen();
      socket.receive({ op: 6, body });
      socket.drop(1006);
      assert.equal(client.state, "waiting");
      assert.equal(log.of("close")[0].code, 1006);
    }
  });
});

describe("10,000 reconnects", () => {
  setFlagsFromString("--expose-gc");
  const gc = runInNewContext("gc");
  // The least of some: after the first collection V8 itself may keep 4 MB for a moment.
  const heapUsed = async () => {
    const found = [];
    while (found.length < 3) {
      await settled();
      gc();
      found.push(process.memoryUsage().heapUsed);
    }
    return Math.min(...found);
  };

  test("leave nothing behind: no timer, no listener, no handler, no memory", async () => {
    const timers = new Set();
    const { setTimeout, clearTimeout } = globalThis;
    // Not with mock.method, which keeps every call.
    globalThis.setTimeout = (fn, ms) => {
      const timer = setTimeout(() => { timers.delete(timer); fn(); }, ms);
      timers.add(timer);
      return timer;
    };
    globalThis.clearTimeout = (timer) => {
      timers.delete(timer);
      clearTimeout(timer);
    };
    const page = new Map(); // listeners
    globalThis.addEventListener = (type, fn) => page.set(type, [...(page.get(type) ?? []), fn]);
    globalThis.removeEventListener = (type, fn) =>
      page.set(type, page.get(type).filter((other) => other !== fn));
    const count = () => [...page.values()].flat().length;

    let events = 0;
    const client = new Imgo("ws://x.test/sub", {
      token: async () => "abc",
      rooms: ["a"],
      WebSocket: Socket,
      storage: null,
      random: () => 0,
    });
    for (const event of ["state", "open", "message", "close", "error"]) client.on(event, () => events++);
    client.connect();
    const round = async (number) => {
      await settled();
      const socket = Socket.last;
      Socket.sockets.length = 0;
      socket.accept();
      client.request(number).catch(() => {});
      client.join(`room${number % 3}`);
      socket.receive({ op: 5, id: String(number), body: number });
      if (number % 5 === 0) tick(100); // else the ack goes with the next session
      if (number % 7 === 0) socket.receiveRaw("garbage");
      else socket.drop();
      if (number % 11 === 0) client.close();
      assert.equal(timers.size, client.state === "closed" ? 0 : 1, "the pause alone");
      assert.equal(count(), client.state === "closed" ? 0 : 5);
      if (client.state === "closed") client.connect();
      else tick(500);
    };
    try {
      let before;
      for (let number = 1; number <= 30_000; number++) {
        if (number === 20_000) before = await heapUsed(); // the test's own clock has grown until then
        await round(number);
      }
      const growth = (await heapUsed()) - before;
      // 100 bytes each would be a closure that is kept.
      assert.ok(growth < 1_000_000, `${growth} bytes more after 10,000 reconnects`);
      assert.equal(client.rooms.length, 4);
      assert.ok(events > 50_000);
      client.close();
      await settled();
      assert.equal(timers.size, 0);
      assert.equal(count(), 0);
    } finally {
      Object.assign(globalThis, { setTimeout, clearTimeout });
      delete globalThis.addEventListener;
      delete globalThis.removeEventListener;
    }
  });
});
