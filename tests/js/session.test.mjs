// How a session begins, ends and comes back.
import assert from "node:assert/strict";
import { describe, mock, test } from "node:test";

import { settled } from "./fake-socket.mjs";
import { Socket, clients, make, makeOpen, tick } from "./harness.mjs";

describe("auth", () => {
  const authBody = (options) => {
    make(options).client.connect();
    Socket.last.open();
    return Socket.last.sent[0];
  };

  test("the token and the rooms are sent in an object that asks for ids", () => {
    const body = { token: "abc", rooms: ["a", "b"], ack: true, retractions: true };
    assert.deepEqual(authBody({ rooms: ["a", "b"] }), { ver: 1, op: 7, seq: 1, body });
  });

  test("who acknowledges nothing and asks for no rooms sends a bare token, as imgo's clients", () => {
    assert.equal(authBody({ ack: false }).body, "abc");
    const { body } = authBody({ ack: false, rooms: ["a"] });
    assert.deepEqual(body, { token: "abc", rooms: ["a"], ack: false, retractions: true });
  });

  test("without a token an object is sent", () => {
    for (const token of [undefined, null, ""]) {
      for (const ack of [true, false]) {
        const { body } = authBody({ token, ack });
        assert.equal(body.token ?? "", "");
        assert.deepEqual({ ...body, token }, { token, rooms: [], ack, retractions: true });
      }
    }
  });

  test("the reply opens the session", () => {
    const { client, log } = make();
    client.connect();
    assert.equal(client.state, "connecting");
    Socket.last.open();
    assert.deepEqual(log.of("open"), []);
    Socket.last.receive({ op: 8, seq: 1 });
    assert.equal(client.state, "open");
    assert.deepEqual(log, [
      ["state", "connecting"],
      ["state", "open"],
      ["open", { body: {} }],
    ]);
  });

  test("what the server takes back is told with its ids", () => {
    const { client, socket } = makeOpen();
    const found = [];
    client.on("retracted", ({ ids }) => found.push(ids));
    socket.receive({ op: 30, body: { ids: ["7", "8"] } });
    assert.deepEqual(found, [["7", "8"]]);
  });

  test("its device goes with the auth frame, and it is told what others have read", () => {
    const { client, socket } = makeOpen({ device: "laptop", ack: false });
    const { token, rooms, ack, ...rest } = socket.sent[0].body;
    assert.deepEqual(rest, { retractions: true, device: "laptop" });
    const found = [];
    client.on("read", ({ ids }) => found.push(ids));
    socket.receive({ op: 31, body: { ids: ["7", "8"] } });
    assert.deepEqual(found, [["7", "8"]]);
    assert.throws(() => make({ device: 7 }), /device/);
  });

  test("a refusal is a close with the server's reason, and is tried again", () => {
    const { client, log } = make();
    client.connect();
    Socket.last.open();
    Socket.last.drop(4401, "token expired");
    assert.deepEqual(log.of("close"), [
      { code: 4401, reason: "token expired", willReconnect: true, delay: 500 },
    ]);
    assert.equal(client.state, "waiting");
  });

  test("an async token function is asked for every attempt", async () => {
    let asked = 0;
    const { client } = make({ token: async () => `token${++asked}` });
    client.connect();
    await settled();
    Socket.last.accept();
    Socket.last.drop();
    tick(500);
    await settled();
    Socket.last.open();
    assert.equal(Socket.last.sent[0].body.token, "token2");
  });

  for (const [what, token] of [
    ["throws", () => { throw new Error("no token today"); }],
    ["rejects", () => Promise.reject(new Error("no token today"))],
    ["rejects with nothing", () => Promise.reject()],
    ["returns what is not a string", () => 42],
  ]) {
    test(`a token function that ${what} is reported and asked again after a pause`, async () => {
      const asked = mock.fn(token);
      const { client, log } = make({ token: asked });
      client.connect();
      await settled();
      assert.equal(log.of("error").length, 1);
      assert.ok(log.of("error")[0] instanceof Error);
      assert.equal(client.state, "waiting");
      assert.equal(Socket.sockets.length, 0);
      for (const pause of [500, 500, 500]) {
        const before = asked.mock.callCount();
        tick(pause - 1);
        await settled();
        assert.equal(asked.mock.callCount(), before);
        tick(1);
        await settled();
        assert.equal(asked.mock.callCount(), before + 1);
      }
    });
  }

  test("a token that never comes ends the attempt, and is ignored when it comes late", async () => {
    const answers = [];
    const { client, log } = make({ token: () => new Promise((done) => answers.push(done)) });
    client.connect();
    tick(15_000);
    assert.equal(log.of("close")[0].reason, "no session in time");
    tick(500);
    answers[0]("late");
    await settled();
    assert.equal(Socket.sockets.length, 0);
    answers[1]("good");
    await settled();
    Socket.last.open();
    assert.equal(Socket.last.sent[0].body.token, "good");
  });

  /** Open a session with a token function; the server says when the token expires. */
  async function expiring(token, seconds) {
    const made = make({ token });
    made.client.connect();
    await settled();
    Socket.last.open();
    const { seq, body } = Socket.last.lastOf(7);
    assert.equal(body.renew, true);
    Socket.last.receive({ op: 8, seq, body: { expires_in: seconds } });
    return made;
  }

  const tokensSent = () => Socket.last.sent.filter(({ op }) => op === 7).map(({ body }) => body.token);

  test("another token is sent before the one of the session expires, again and again", async () => {
    let asked = 0;
    const long = (number) => `token${number}`.padEnd(7_000, "."); // maxBody is 1,024
    const { log } = await expiring(async () => long(++asked), 60);
    for (const count of [2, 3]) {
      tick(47_999);
      await settled();
      assert.equal(tokensSent().length, count - 1);
      tick(1);
      await settled();
      assert.equal(tokensSent().at(-1), long(count));
      Socket.last.receive({ op: 8, seq: Socket.last.lastOf(7).seq, body: { expires_in: 60 } });
      await settled();
    }
    assert.deepEqual([log.of("error"), log.of("close")], [[], []]);
  });

  test("a token that is refused is an error, and the session goes on", async () => {
    const { client, log } = await expiring(() => "abc", 60);
    tick(48_000);
    await settled();
    const body = { error: { code: "forbidden", message: "another key's" } };
    Socket.last.receive({ op: 8, seq: Socket.last.lastOf(7).seq, body });
    await settled();
    assert.deepEqual(log.of("error").map(({ code }) => code), ["forbidden"]);
    assert.equal(client.state, "open");
  });

  test("a token function that fails is called again while there is time", async () => {
    const failures = [2, 3, 4];
    let asked = 0;
    const { client, log } = await expiring(async () => {
      if (failures.includes(++asked)) throw new Error("away");
      return `token${asked}`;
    }, 60);
    for (const [pause, calls] of [[48_000, 2], [9_600, 3], [1_920, 4], [1_000, 5]]) {
      tick(pause - 1);
      await settled();
      assert.equal(asked, calls - 1);
      tick(1);
      await settled();
      assert.equal(asked, calls);
    }
    assert.equal(log.of("error").length, 3);
    assert.equal(tokensSent().at(-1), "token5");
    assert.equal(client.state, "open");
  });

  test("a renewal that fails behind the end of its session leaves the next one alone", async () => {
    let fail;
    const answers = ["abc", new Promise((_, reject) => (fail = reject)), "def"];
    const { client, log } = await expiring(() => answers.shift(), 60);
    tick(48_000);
    Socket.last.drop();
    fail(new Error("away"));
    await settled();
    assert.equal(log.of("error").length, 1);
    tick(500);
    await settled();
    Socket.last.accept();
    assert.equal(client.state, "open");
    tick(60_000);
    await settled();
    assert.equal(answers.length, 0);
  });

  test("a session that has ended asks for no token, nor one whose token lasts", async () => {
    for (const seconds of [60, undefined, 1e9]) {
      const token = mock.fn(() => "abc");
      const { client } = await expiring(token, seconds);
      if (seconds === 60) client.close();
      tick(200_000);
      await settled();
      assert.equal(token.mock.callCount(), 1);
      client.close();
    }
  });

  test("closing while the token is under way makes no socket", async () => {
    let answer;
    const { client } = make({ token: () => new Promise((done) => (answer = done)) });
    client.connect();
    client.close();
    answer("abc");
    await settled();
    assert.equal(Socket.sockets.length, 0);
    assert.equal(client.state, "closed");
  });

  test("a server that never answers the auth frame is left", () => {
    const { client, log } = make();
    client.connect();
    const socket = Socket.last;
    socket.open();
    tick(15_000);
    assert.equal(client.state, "waiting");
    assert.equal(log.of("close")[0].code, 1006);
    assert.ok(socket.closed && socket.isDetached);
  });
});

describe("coming back", () => {
  const lose = (code) => {
    const { client, log, socket } = makeOpen();
    socket.drop(code, "because");
    return { client, log, close: log.of("close")[0] };
  };

  for (const code of [1000, 1001, 1006, 1011, 1015, 3000, 4000, 4401, 4499]) {
    test(`after ${code} it does`, () => {
      const { client, close } = lose(code);
      assert.deepEqual(close, { code, reason: "because", willReconnect: true, delay: 500 });
      tick(500);
      assert.equal(client.state, "connecting");
      assert.equal(Socket.sockets.length, 2);
    });
  }

  for (const code of [4500, 4506, 4999]) {
    test(`after ${code} it does not`, () => {
      const { client, close } = lose(code);
      assert.deepEqual(close, { code, reason: "because", willReconnect: false, delay: 0 });
      tick(1e6);
      assert.equal(client.state, "closed");
      assert.equal(Socket.sockets.length, 1);
      client.connect();
      assert.equal(Socket.sockets.length, 2);
    });
  }

  test("after close() it does not, and connect() starts anew", () => {
    const { client, log, socket } = makeOpen({ rooms: ["a"] });
    client.close();
    client.close();
    assert.equal(log.of("close").length, 1);
    assert.equal(log.of("close")[0].willReconnect, false);
    assert.ok(socket.closed && socket.isDetached);
    tick(1e6);
    assert.equal(Socket.sockets.length, 1);
    client.connect();
    Socket.last.accept();
    assert.deepEqual(Socket.last.sent[0].body.rooms, ["a"]);
    Socket.last.drop();
    assert.equal(client.state, "waiting");
  });

  test("close() ends the pause before an attempt", () => {
    const { client, socket } = makeOpen();
    socket.drop();
    client.close();
    tick(1e6);
    assert.equal(Socket.sockets.length, 1);
  });

  test("connect() skips the pause, and does nothing while connecting or open", () => {
    const { client, socket } = makeOpen();
    client.connect();
    socket.drop();
    tick(500);
    client.connect().connect();
    tick(1);
    assert.equal(Socket.sockets.length, 2);
    client.connect();
    tick(14_999);
    assert.equal(Socket.sockets.length, 2);
  });

  test("the shortest pause is not skipped, and is not made longer", () => {
    const { client, socket } = makeOpen({ random: () => 1 });
    socket.drop();
    for (let passed = 0; passed < 500; passed += 100) {
      assert.equal(Socket.sockets.length, 1);
      client.connect();
      tick(100);
    }
    assert.equal(Socket.sockets.length, 2);
  });

  test("pauses are drawn between min and a ceiling that doubles up to max", () => {
    for (const [random, expected] of [
      [0, [500, 500, 500, 500, 500, 500, 500, 500]],
      [0.5, [750, 1250, 2250, 4250, 8250, 15250, 15250, 15250]],
      [1, [1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]],
    ]) {
      const { client, log } = make({ random: () => random });
      client.connect();
      for (const delay of expected) {
        const { length } = Socket.sockets;
        Socket.last.drop();
        tick(delay - 1);
        assert.equal(Socket.sockets.length, length);
        tick(1);
        assert.equal(Socket.sockets.length, length + 1);
      }
      assert.deepEqual(log.of("close").map(({ delay }) => delay), expected);
      client.close();
    }
  });

  test("each end by overload counts twice, so it doubles the ceiling of the pauses", () => {
    const { client, log } = make({ random: () => 1 });
    client.connect();
    const ends = [[4013, "overloaded: come back", 2000], [4013, "a service", 4000],
      [4013, "overloaded", 16_000], [4013, "not overloaded", 30_000]];
    for (const [code, reason, delay] of ends) {
      Socket.last.drop(code, reason);
      assert.equal(log.of("close").at(-1).delay, delay);
      tick(delay);
    }
  });

  test("a session of some length resets the back-off, a short one does not", () => {
    const { client, log } = make({ random: () => 1 });
    client.connect();
    const lengths = [[0, 1000], [29_999, 2000], [0, 4000], [30_000, 1000], [0, 2000]];
    for (const [length, delay] of lengths) {
      Socket.last.accept();
      tick(length);
      Socket.last.drop();
      assert.equal(log.of("close").at(-1).delay, delay);
      tick(delay);
    }
  });

  test("op 6 gives code and reason when the close does not", () => {
    const { log, socket } = makeOpen();
    const said = { code: 4504, reason: "closed by an administrator" };
    socket.receive({ op: 6, body: { ...said, reconnect: false } });
    socket.drop(1006);
    assert.deepEqual(log.of("close"), [{ ...said, willReconnect: false, delay: 0 }]);
  });

  test("a close code of the server's own wins over op 6", () => {
    const { client, log, socket } = makeOpen();
    socket.receive({ op: 6, body: { code: 4000, reason: "x", reconnect: true } });
    socket.drop(4503, "replaced");
    assert.equal(log.of("close")[0].code, 4503);
    assert.equal(log.of("close")[0].willReconnect, false);
    tick(500);
    client.connect();
    Socket.last.accept();
    Socket.last.drop(1006);
    assert.equal(log.of("close")[1].willReconnect, true, "that was about one session");
  });

  test("op 6 without a body, and without a close, ends the session all the same", () => {
    const { client, log, socket } = makeOpen();
    socket.receive({ op: 6, body: null });
    tick(10_000);
    assert.equal(client.state, "waiting");
    assert.equal(log.of("close")[0].code, 1006);
  });

  test("a WebSocket that can not be made is an error, and tried again", () => {
    class Forbidden {
      constructor() {
        throw new Error("SecurityError");
      }
    }
    const { client, log } = make({ WebSocket: Forbidden });
    client.connect();
    assert.equal(log.of("error")[0].message, "SecurityError");
    assert.equal(client.state, "waiting");
    tick(500);
    assert.equal(log.of("error").length, 2);
  });

  test("an error handler that closes the client is obeyed", () => {
    const { client, log, socket } = makeOpen();
    client.on("error", () => client.close());
    socket.receiveRaw("garbage");
    tick(1e6);
    assert.equal(client.state, "closed");
    assert.equal(Socket.sockets.length, 1);
    assert.deepEqual(log.of("state"), ["connecting", "open", "waiting", "closed"]);
  });
});
