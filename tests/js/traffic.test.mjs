// What travels in an open session: messages, requests, rooms, garbage.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { describe, test } from "node:test";

import { settled } from "./fake-socket.mjs";
import { Socket, make, makeOpen, tick, withCode } from "./harness.mjs";

const vectors = JSON.parse(readFileSync(new URL("../../docs/frames.json", import.meta.url)));
const refusal = { error: { code: "room_forbidden", message: "not yours" } };

describe("messages", () => {
  test("a push is a message with body, op, id and frame", () => {
    const { log, socket } = makeOpen();
    socket.receive({ op: 5, body: { text: "hi" }, ver: 2, id: "17" });
    const frame = { ver: 2, op: 5, seq: 0, body: { text: "hi" }, id: "17" };
    assert.deepEqual(log.of("message"), [{ body: { text: "hi" }, op: 5, id: "17", frame }]);
  });

  test("a batch arrives in order, ops from 1000 on are messages, others are not", () => {
    const { log, socket } = makeOpen();
    const pushes = [{ op: 5, body: 1 }, { op: 1000, body: 2 }, { op: 5, body: null }];
    socket.receive(pushes[0], { op: 3 }, pushes[1], { op: 255 }, pushes[2]);
    assert.deepEqual(log.of("message").map(({ body }) => body), [1, 2, null]);
    assert.deepEqual(log.of("error"), []);
  });

  test("messages in the same batch as the auth reply arrive after open", () => {
    const { client, log } = make();
    client.connect();
    Socket.last.open();
    Socket.last.receive({ op: 8, seq: 1 }, { op: 5, body: "replayed" });
    assert.deepEqual(log.map(([event]) => event), ["state", "state", "open", "message"]);
  });

  test("a handler that closes the session gets no more of the batch", () => {
    const { client, log, socket } = makeOpen();
    client.on("message", () => client.close());
    socket.receive({ op: 5, body: 1 }, { op: 5, body: 2 });
    assert.deepEqual(log.of("message").map(({ body }) => body), [1]);
  });
});

describe("requests", () => {
  test("the frame of op 5 with the same seq settles the request and is no message", async () => {
    const { client, log, socket } = makeOpen();
    const answer = client.request({ q: 1 });
    const { seq, body } = socket.lastOf(4);
    assert.deepEqual(body, { q: 1 });
    socket.receive({ op: 5, seq: 0, body: "push" }, { op: 5, seq, body: "answer" });
    assert.equal(await answer, "answer");
    assert.deepEqual(log.of("message").map((message) => message.body), ["push"]);
  });

  test("answers may come in any order", async () => {
    const { client, socket } = makeOpen();
    const answers = Promise.all([client.request(1), client.request(2)]);
    const [first, second] = socket.sent.filter(({ op }) => op === 4);
    assert.notEqual(first.seq, second.seq);
    socket.receive({ op: 5, seq: second.seq, body: "two" }, { op: 5, seq: first.seq, body: "one" });
    assert.deepEqual(await answers, ["one", "two"]);
  });

  test("a refusal rejects the request as it rejects a join", async () => {
    const { client, socket } = makeOpen();
    const answer = client.request();
    assert.deepEqual(socket.lastOf(4).body, {});
    socket.receive({ op: 5, seq: socket.lastOf(4).seq, body: refusal });
    await assert.rejects(answer, withCode("room_forbidden"));
  });

  test("an answer with an error of another form is the receiver's own", async () => {
    const { client, socket } = makeOpen();
    for (const error of ["out of stock", { code: 5 }, null]) {
      const answer = client.request();
      socket.receive({ op: 5, seq: socket.lastOf(4).seq, body: { error } });
      assert.deepEqual(await answer, { error });
    }
  });

  test("no answer in time rejects; a late one is no message", async () => {
    const { client, log, socket } = makeOpen({ timeout: 50 });
    const answer = client.request("q");
    tick(50);
    await assert.rejects(answer, withCode("timeout"));
    socket.receive({ op: 5, seq: socket.lastOf(4).seq, body: "late" });
    assert.equal(log.of("message").length, 0);
  });

  test("the end of the session rejects, and so does asking without one", async () => {
    const { client, socket } = makeOpen();
    const answer = client.request("q");
    socket.drop();
    await assert.rejects(answer, withCode("closed"));
    await assert.rejects(client.request("q"), withCode("closed"));
    client.close();
    await assert.rejects(client.request("q"), withCode("closed"));
  });

  test("a body that the server would close the session for rejects and is not sent", async () => {
    const { client, socket } = makeOpen({ maxBody: 10 });
    await assert.rejects(client.request("żżżżż"), withCode("too_large"));
    assert.equal(socket.lastOf(4), undefined);
    const answer = client.request("żżżż");
    socket.receive({ op: 5, seq: socket.lastOf(4).seq, body: "taken" });
    assert.equal(await answer, "taken");
  });

  test("a body that is not JSON rejects and sends nothing", async () => {
    const { client, socket } = makeOpen();
    await assert.rejects(client.request(1n), TypeError);
    assert.equal(socket.lastOf(4), undefined);
  });

  test("an answer of the wrong op settles nothing", async () => {
    const { client, log, socket } = makeOpen();
    const joining = client.join("a");
    const { seq } = socket.lastOf(18);
    socket.receive({ op: 13, seq, body: refusal }, { op: 5, seq, body: refusal });
    socket.receive({ op: 19, seq });
    assert.equal(await joining, true);
    assert.equal(log.of("message").length, 0);
  });
});

describe("rooms", () => {
  const answer = (socket, op, body = {}) =>
    socket.receive({ op: op + 1, seq: socket.lastOf(op).seq, body });
  const reconnect = (socket) => {
    socket.drop();
    tick(30_000);
    Socket.last.open();
    return Socket.last;
  };
  const roomsOf = (socket) => socket.sent[0].body.rooms;

  test("joined rooms are asked for again after a reconnect, left ones are not", async () => {
    const { client, socket } = makeOpen({ rooms: ["a", "b"] });
    const joining = client.join("c");
    assert.equal(socket.lastOf(18).body, "c");
    answer(socket, 18);
    assert.equal(await joining, true);
    const leaving = client.leave("a");
    assert.equal(socket.lastOf(20).body, "a");
    answer(socket, 20);
    assert.equal(await leaving, true);
    assert.deepEqual(client.rooms, ["b", "c"]);
    assert.deepEqual(roomsOf(reconnect(socket)), ["b", "c"]);
  });

  test("a refused join rejects with the server's code and is forgotten", async () => {
    const { client, socket } = makeOpen({ rooms: ["a"] });
    const joining = client.join("secret");
    answer(socket, 18, refusal);
    await assert.rejects(joining, (error) => {
      return error.code === "room_forbidden" && error.message === "not yours";
    });
    assert.deepEqual(client.rooms, ["a"]);
  });

  test("a join that the connection did not outlive is made good by the next session", async () => {
    const { client, socket } = makeOpen();
    const joining = client.join("a");
    const next = reconnect(socket);
    assert.equal(await joining, false);
    assert.deepEqual(roomsOf(next), ["a"]);
  });

  test("a join without an answer rejects, but the room stays wanted", async () => {
    const { client } = makeOpen({ timeout: 50 });
    const joining = client.join("a");
    tick(50);
    await assert.rejects(joining, withCode("timeout"));
    assert.deepEqual(client.rooms, ["a"]);
  });

  test("rooms can be chosen before there is a session", async () => {
    const { client } = make({ rooms: ["a"] });
    assert.equal(await client.join("b"), false);
    assert.equal(await client.leave("a"), false);
    client.connect();
    Socket.last.open();
    assert.deepEqual(roomsOf(Socket.last), ["b"]);
  });

  test("rooms changed while the auth frame is under way are joined and left after it", () => {
    const { client } = make({ rooms: ["a", "b"] });
    client.connect();
    const socket = Socket.last;
    socket.open();
    client.leave("a");
    client.join("c");
    assert.equal(socket.sent.length, 1);
    socket.receive({ op: 8, seq: 1 });
    assert.equal(socket.lastOf(20).body, "a");
    assert.equal(socket.lastOf(18).body, "c");
    assert.deepEqual(client.rooms, ["b", "c"]);
  });

  test("rooms that the auth frame has no space for are joined after it", () => {
    const rooms = Array.from({ length: 100 }, (_, n) => `a room with a rather long name ${n}`);
    const { socket } = makeOpen({ rooms });
    assert.ok(JSON.stringify(socket.sent[0].body).length <= 1024);
    const joined = socket.sent.filter(({ op }) => op === 18).map(({ body }) => body);
    assert.ok(joined.length < 100);
    assert.deepEqual([...roomsOf(socket), ...joined], rooms);
  });

  test("such a late join that is refused is an error event", async () => {
    const { client, log } = make();
    client.connect();
    Socket.last.open();
    client.join("secret");
    Socket.last.receive({ op: 8, seq: 1 });
    answer(Socket.last, 18, refusal);
    await settled();
    assert.equal(log.of("error")[0].code, "room_forbidden");
    assert.deepEqual(client.rooms, []);
  });

  test("a room that is no name rejects", async () => {
    const { client } = makeOpen();
    await assert.rejects(client.join(""), TypeError);
    await assert.rejects(client.leave(7), TypeError);
  });
});

describe("garbage", () => {
  const bad = vectors.server_text_bad.map(({ name, text }) => [name, text]);
  bad.push(["binary", new TextEncoder().encode("[]").buffer], ["a Blob", new Blob(["[]"])]);
  for (const [what, data] of bad) {
    test(`${what} is an error, and the socket is closed and replaced`, () => {
      const { client, log, socket } = makeOpen();
      socket.receiveRaw(data);
      assert.deepEqual(log.of("error").map(({ code }) => code), ["protocol"]);
      assert.deepEqual(log.of("message"), []);
      assert.equal(log.of("close")[0].code, 1002);
      assert.ok(socket.closed && socket.isDetached);
      tick(500);
      assert.equal(Socket.sockets.length, 2);
      assert.equal(client.state, "connecting");
    });

    test(`${what} instead of the auth reply is an error too`, () => {
      const { client, log } = make();
      client.connect();
      Socket.last.open();
      Socket.last.receiveRaw(data);
      assert.equal(log.of("error").length, 1);
      assert.equal(client.state, "waiting");
    });
  }
});

describe("what servers send", () => {
  for (const { name, text, frames } of vectors.server_text) {
    test(`${name} is understood`, async () => {
      const { client, log } = make();
      client.connect();
      Socket.last.open();
      const has = (op) => frames.find((frame) => frame.op === op)?.body;
      if (!has(8)) Socket.last.receive({ op: 8, seq: 1 });
      const joins = ["a", "b", "c"].map((room) => client.join(room).catch((error) => error));
      Socket.last.receiveRaw(text);
      const expected = frames.filter(({ op }) => op === 5 || op >= 1000);
      assert.deepEqual(JSON.parse(text), frames);
      assert.deepEqual(log.of("message").map((message) => message.frame), expected);
      assert.deepEqual(log.of("message").map(({ id }) => id), expected.map(({ id }) => id));
      assert.deepEqual(log.of("error"), []);
      assert.equal(client.state, "open");
      Socket.last.drop();
      const [{ code, reason, willReconnect: reconnect }] = log.of("close");
      if (has(6)) assert.deepEqual({ code, reason, reconnect }, has(6));
      if (has(19)) {
        const { code, message } = await joins[2]; // seq 4
        assert.deepEqual({ code, message }, has(19).error);
      }
    });
  }
});
