// One connection for several clients: each has its own rooms, positions and requests.
// What tabs do to one another is tested in a browser: tests/browser/test_fallback.py.
import assert from "node:assert/strict";
import { beforeEach, describe, mock, test } from "node:test";

import { EventsServer, until } from "./events-server.mjs";
import { Socket, make, withCode } from "./harness.mjs";

let number = 0;
let share;

beforeEach(() => {
  mock.timers.reset(); // a BroadcastChannel has real ones
  share = `user ${++number}`;
});

const at = (offset, epoch = "e1") => ({ epoch, offset });
const push = (offset, room = "chat-1") => ({ op: 5, ver: 2, id: `${offset}`, room, offset, body: offset });
const sent = (op) => Socket.last.sent.filter((frame) => frame.op === op);
/** Reply to the newest frame with this op, when there are so many. */
async function answer(op, body = {}, count = 1) {
  const frame = await until(() => sent(op)[count - 1], `${count} frames of op ${op}`);
  Socket.last.receive({ op: op + 1, seq: frame.seq, body });
  return frame.body;
}

function start({ url, ...options } = {}) {
  const both = url && { transports: ["websocket", "sse"] };
  const made = make({ share, backoff: { min: 5, max: 20 }, ...both, ...options }, url);
  const bodies = [];
  made.client.on("message", ({ body }) => void bodies.push(body)).connect();
  return { ...made, bodies };
}

const isOpen = ({ client }) => until(() => client.state === "open", "a session");

/** The first client, with a session of these rooms. */
async function first(options, rooms = {}) {
  const made = start(options);
  const socket = await until(() => Socket.last, "the WebSocket");
  socket.open();
  await until(() => socket.lastOf(7), "the auth frame");
  socket.receive({ op: 8, seq: socket.lastOf(7).seq, body: { rooms } });
  await isOpen(made);
  return { ...made, socket };
}

async function further(options) {
  const made = start(options);
  await isOpen(made);
  return made;
}

function roomOf(client, name, options) {
  const room = client.room(name, options);
  const seen = [];
  room.on("message", ({ offset, body }) => seen.push(offset ?? body));
  for (const event of ["recovered", "gap"]) room.on(event, () => seen.push(event));
  return { room, seen };
}

describe("one connection", () => {
  test("has the first one's token and rooms, and room names", async () => {
    const { socket } = await first({ rooms: ["lobby"] });
    await further({ token: "other" });
    assert.equal(Socket.sockets.length, 1);
    const { body } = socket.lastOf(7);
    const asked = { names: true, retractions: true, rooms: { lobby: {} } };
    assert.deepEqual(body, { token: "abc", ack: true, ...asked });
  });

  test("a message to the key goes to all, and is acknowledged once", async () => {
    const [a, b] = [await first(), await further()];
    Socket.last.receive({ op: 5, ver: 2, id: "7", body: "hello" });
    await until(() => a.bodies.length && b.bodies.length);
    await until(() => sent(22).length);
    await a.client.leave("nowhere").catch(() => {});
    assert.deepEqual(sent(22).map(({ body }) => body), [["7"]]);
    Socket.last.receive({ op: 5, ver: 2, id: "7", body: "hello" }); // the last one was lost
    await until(() => sent(22).length === 2);
    assert.deepEqual([a.bodies, b.bodies], [["hello"], ["hello"]]);
  });

  test("what the server takes back is told to all", async () => {
    const tabs = [await first(), await further()];
    const found = [];
    for (const { client } of tabs) client.on("retracted", ({ ids }) => found.push(...ids));
    Socket.last.receive({ op: 30, body: { ids: ["7"] } });
    await until(() => found.length === 2);
  });

  test("what no tab has handled is handed to those that come", async () => {
    const a = await first();
    a.client.on("message", () => { throw new Error("the disk is full"); });
    Socket.last.receive({ op: 5, ver: 2, id: "7", body: "hello" });
    await until(() => a.log.of("error").length);
    const b = await further();
    await until(() => b.bodies.length);
    await until(() => sent(22).length);
  });

  test("each gets the replies to its own requests", async () => {
    const [a, b] = [await first(), await further()];
    const asking = [a.client.request("a"), b.client.request("b")];
    const frames = await until(() => sent(4).length === 2 && sent(4));
    for (const { seq, body } of frames) Socket.last.receive({ op: 5, seq, body: `for ${body}` });
    assert.deepEqual(await Promise.all(asking), ["for a", "for b"]);
  });

  test("its end is the end of all, with its code; and all come back to one", async () => {
    const [a, b] = [await first(), await further()];
    Socket.last.receive({ op: 6, body: { code: 4402, reason: "expired", reconnect: true } });
    Socket.last.drop(4402, "expired");
    await until(() => a.log.of("close").length && b.log.of("close").length);
    assert.deepEqual([a, b].map(({ log }) => log.of("close")[0].code), [4402, 4402]);
    await until(() => Socket.sockets.length === 2);
    Socket.last.open();
    await until(() => Socket.last.lastOf(7));
    Socket.last.receive({ op: 8, seq: Socket.last.lastOf(7).seq, body: { rooms: {} } });
    await isOpen(a);
    await isOpen(b);
    assert.equal(Socket.sockets.length, 2);
  });

  test("a tab changes its transport for all, and each has the connection's", async () => {
    const server = await EventsServer.start();
    try {
      const [a, b] = [await first({ url: server.url }), await further({ url: server.url })];
      assert.deepEqual([a, b].map(({ client }) => client.transport), ["websocket", "websocket"]);
      b.client.connect("sse");
      await server.open();
      for (const { client } of [b, a]) {
        await until(() => client.state === "open" && client.transport === "sse", "SSE");
      }
      assert.deepEqual([server.streams.length, Socket.sockets.length], [1, 1]);
      assert.equal(a.log.of("close")[0].reason, "a tab wants another transport");
      a.client.connect("websocket");
      const socket = await until(() => Socket.sockets[1], "another WebSocket");
      socket.open();
      await until(() => socket.lastOf(7), "the auth frame");
      socket.receive({ op: 8, seq: socket.lastOf(7).seq, body: { rooms: {} } });
      for (const { client } of [a, b]) {
        await until(() => client.state === "open" && client.transport === "websocket", "WebSocket");
      }
      a.client.close();
      b.client.close();
    } finally {
      server.stop();
    }
  });

  test("it is closed when the last client closes", async () => {
    const [a, b] = [await first(), await further()];
    a.client.close();
    await b.client.leave("nowhere").catch(() => {});
    assert.equal(Socket.last.closed, undefined);
    b.client.close();
    await until(() => Socket.last.closed);
  });
});

describe("the token", () => {
  const tokensSent = () => sent(7).map(({ body }) => body.token);

  /** The first client, whose token lasts so many seconds, and others with tokens of their own. */
  async function expiring(seconds, ...tokens) {
    const [token, ...others] = tokens;
    const a = start({ token });
    const socket = await until(() => Socket.last, "the WebSocket");
    socket.open();
    const { seq, body } = await until(() => socket.lastOf(7), "the auth frame");
    assert.equal(body.renew, true);
    socket.receive({ op: 8, seq, body: { rooms: {}, expires_in: seconds } });
    await isOpen(a);
    const made = [a];
    for (const other of others) made.push(await further({ token: other }));
    return made;
  }

  test("is renewed by one tab, and by another one when that tab is gone", async () => {
    const [a, b] = await expiring(1.25, () => "a", () => "b");
    assert.deepEqual(await answer(7, { expires_in: 1.25 }, 2), { token: "a" });
    a.client.close();
    assert.deepEqual(await answer(7, { expires_in: 60 }, 3), { token: "b" });
    assert.deepEqual(tokensSent(), ["a", "a", "b"]);
    assert.deepEqual([b.client.state, b.log.of("close")], ["open", []]);
    b.client.close();
  });

  test("is renewed by another tab if the first one cannot", async () => {
    const fail = () => {
      if (Socket.last?.lastOf(7)) throw new Error("signed out");
      return "a";
    };
    const [a, b] = await expiring(1.25, fail, () => "b");
    await answer(7, { expires_in: 60 }, 2);
    assert.deepEqual(tokensSent(), ["a", "b"]);
    assert.ok(a.log.of("error").length);
    assert.deepEqual(b.log.of("error"), []);
    a.client.close();
    b.client.close();
  });
});

describe("rooms", () => {
  test("messages go to those who are in the room; the last one who leaves it leaves it", async () => {
    const [a, b] = [await first({ rooms: ["lobby"] }), await further({ rooms: ["lobby"] })];
    Socket.last.receive({ op: 5, room: "lobby", body: 1 });
    await until(() => a.bodies.length && b.bodies.length);
    assert.equal(sent(18).length, 0, "the session is in it already");
    assert.equal(await a.client.leave("lobby"), true);
    Socket.last.receive({ op: 5, room: "lobby", body: 2 });
    await until(() => b.bodies.length === 2);
    const leaving = b.client.leave("lobby");
    await answer(20);
    assert.equal(await leaving, true);
    assert.deepEqual(a.bodies, [1]);
  });

  test("a client that closes leaves its rooms", async () => {
    const [, b] = [await first(), await further()];
    const joining = b.client.join("den");
    assert.deepEqual(await answer(18), { den: {} });
    assert.equal(await joining, true);
    b.client.close();
    assert.equal((await until(() => sent(20)[0])).body, "den");
  });

  test("a refusal is the asker's, and the next one asks again", async () => {
    const [a, b] = [await first(), await further()];
    const joining = a.client.join("den");
    await answer(18, { error: { code: "room_forbidden", message: "no" } });
    await assert.rejects(joining, withCode("room_forbidden"));
    const again = b.client.join("den");
    await answer(18, {}, 2);
    assert.equal(await again, true);
  });

  test("two who ask for a room at once cost one join", async () => {
    const [a, b] = [await first(), await further()];
    const rooms = [roomOf(a.client, "chat-1"), roomOf(b.client, "chat-1")];
    await until(() => sent(18).length);
    await b.client.leave("nowhere").catch(() => {});
    await answer(18, at(3));
    await until(() => rooms.every(({ room }) => room.state === "joined"));
    Socket.last.receive(push(4));
    await until(() => rooms.every(({ seen }) => seen.length === 1));
    assert.equal(sent(18).length, 1);
  });

  test("who comes to a room with a rewind gets it from the history, before what is live", async () => {
    const [a, b] = [await first(), await further()];
    const one = roomOf(a.client, "chat-1");
    await answer(18, at(3));
    await until(() => one.room.state === "joined");
    const two = roomOf(b.client, "chat-1", { rewind: 2 });
    await until(() => sent(24).length);
    Socket.last.receive(push(4), push(5));
    const page = [4, 3].map((offset) => ({ offset, id: `${offset}`, op: 5, at: 1, body: offset, from: "ann" }));
    const senders = [];
    two.room.on("message", ({ from }) => senders.push(from));
    assert.deepEqual(await answer(24, { ...at(4), more: true, messages: page }), { limit: 2, room: "chat-1" });
    await until(() => two.seen.length === 3);
    assert.deepEqual([one.seen, two.seen], [[4, 5], [3, 4, 5]]);
    assert.deepEqual(senders, ["ann", "ann", undefined]);
  });

  test("who asks a room without history for messages is told that it has none", async () => {
    const [a, b] = [await first(), await further()];
    const one = roomOf(a.client, "lobby");
    await answer(18, {});
    await until(() => one.room.state === "joined");
    const two = roomOf(b.client, "lobby", { rewind: 2 });
    await until(() => two.seen.length);
    assert.deepEqual([one.seen, two.seen], [[], ["recovered"]]);
    assert.deepEqual(b.log.of("error").map(({ code }) => code), ["no_history"]);
  });

  const comeBack = async (oldest, top = 5) => {
    const [a, b] = [await first(), await further()];
    roomOf(a.client, "chat-1");
    await answer(18, at(top));
    const two = roomOf(b.client, "chat-1", { position: at(3) });
    const messages = [4, 5].map((offset) => ({ offset, id: `${offset}`, op: 5, at: 1, body: offset }));
    await answer(24, { ...at(5), more: false, messages });
    await answer(24, { ...at(5), more: false, messages: oldest ? [{ offset: oldest }] : [] }, 2);
    await until(() => two.room.state === "joined" && two.seen.length);
    Socket.last.receive(push(6));
    await until(() => two.seen.at(-1) === 6);
    return two;
  };

  test("who comes back with a position gets all that was missed", async () => {
    const { seen } = await comeBack(4);
    assert.deepEqual(seen, ["recovered", 4, 5, 6]);
  });

  test("or is told that not all is there, and gets none of it", async () => {
    const { seen, room } = await comeBack(5);
    assert.deepEqual(seen, ["recovered", 6]);
    assert.deepEqual(room.position, at(6));
  });

  test("who is in a room is told to those who are in it, and each asks for itself", async () => {
    const [a, b, c] = [await first(), await further(), await further()];
    const rooms = [a.client.room("chat-1"), b.client.room("chat-1")];
    const events = [[], []];
    for (const [n, { presence }] of rooms.entries()) {
      for (const event of ["join", "leave"]) {
        presence.on(event, ({ key }) => events[n].push(`${event} ${key}`));
      }
    }
    c.client.room("chat-2").presence.on("update", () => assert.fail("it is another room's"));
    const isAsked = ({ body }) => body["chat-1"];
    const joining = await until(() => sent(18).find(isAsked));
    Socket.last.receive({ op: 19, seq: joining.seq, body: {} });
    await until(() => sent(26).length === 2);
    const ann = { key: "ann", info: {} };
    for (const { seq } of sent(26)) {
      const body = { room: "chat-1", version: "e.1", count: 1, members: [ann] };
      Socket.last.receive({ op: 27, seq, body });
    }
    const [joined, left] = [[{ key: "bob", info: {} }], ["ann"]];
    const change = { room: "chat-1", base: "e.1", version: "e.2", joined, left, count: 1 };
    Socket.last.receive({ op: 28, body: change });
    await until(() => events.every((seen) => seen.length === 2));
    assert.deepEqual(events[1], ["leave ann", "join bob"]);
    assert.deepEqual([a, b, c].map(({ log }) => log.of("error")), [[], [], []]);
  });

  test("a gap is told to those who are in the room", async () => {
    const [a, b] = [await first(), await further()];
    const { seen } = roomOf(a.client, "chat-1");
    await answer(18, at(3));
    await until(() => sent(18).length);
    Socket.last.receive({ op: 29, body: { room: "chat-1", ...at(9) } });
    await until(() => seen.length);
    assert.deepEqual([seen, b.log.of("error")], [["gap"], []]);
  });
});
