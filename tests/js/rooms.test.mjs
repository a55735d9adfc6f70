// Rooms with history: what is asked for, what comes of the answers, and where the position is kept.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { describe, mock, test } from "node:test";

import { settled } from "./fake-socket.mjs";
import { Socket, make, makeOpen, tick, withCode } from "./harness.mjs";

const vectors = JSON.parse(readFileSync(new URL("../../docs/frames.json", import.meta.url)));
const refusal = (code) => ({ error: { code, message: "not yours" } });
const at = (offset, epoch = "e1") => ({ epoch, offset });
const push = (offset, room = "chat-1") => ({ op: 5, ver: 2, id: `${100 + offset}`, room, offset, body: offset });
const sent = (socket, op) => socket.sent.filter((frame) => frame.op === op).map(({ body }) => body);

/** The events of a room, as [name, data]; a message as its body. */
function logOf(room) {
  const log = [];
  for (const event of ["state", "message", "recovered", "gap"]) {
    room.on(event, (data) => log.push([event, event === "message" ? data.body : data]));
  }
  return log;
}

/** Open the newest socket; the server answers the auth frame with these rooms. */
function accept(rooms) {
  Socket.last.open();
  const { seq, body } = Socket.last.lastOf(7);
  Socket.last.receive({ op: 8, seq, body: { rooms } });
  return body;
}

const answer = (op, body = {}) =>
  Socket.last.receive({ op: op + 1, seq: Socket.last.lastOf(op).seq, body });

function reconnect(rooms) {
  Socket.last.drop();
  tick(30_000);
  return accept(rooms);
}

/** A room that an open session is in, at a position. */
function joined(options, told = at(3)) {
  const made = make();
  const room = made.client.room("chat-1", options);
  const events = logOf(room);
  made.client.connect();
  accept({ "chat-1": told });
  return { ...made, room, events };
}

/** A Web Storage without a browser. */
function memory() {
  const items = new Map();
  return {
    items,
    getItem: (name) => items.get(name) ?? null,
    setItem: (name, value) => items.set(name, value),
  };
}

describe("joining", () => {
  test("the auth frame asks for all rooms in an object, those of join() for nothing more", () => {
    const { client } = make({ rooms: ["lobby"] });
    client.room("chat-1", { rewind: 20 });
    client.room("chat-2", { position: at(41) });
    client.room("chat-3");
    client.connect();
    assert.deepEqual(accept({}), {
      token: "abc",
      rooms: { lobby: {}, "chat-1": { rewind: 20 }, "chat-2": at(41), "chat-3": {} },
      ack: true,
      retractions: true,
    });
    assert.deepEqual(client.rooms, ["lobby"]);
    assert.equal(Socket.last.sent.length, 1);
  });

  test("in an open session it is a join with an object", () => {
    const { client } = makeOpen();
    const room = client.room("chat-1", { rewind: 20 });
    const events = logOf(room);
    assert.deepEqual(sent(Socket.last, 18), [{ "chat-1": { rewind: 20 } }]);
    answer(18, at(57));
    assert.deepEqual(events, [["state", "joined"]]);
    assert.equal(room.state, "joined");
  });

  test("messages in the same batch as the answer are the room's, in order", () => {
    const { client, log } = makeOpen();
    const events = logOf(client.room("chat-1", { position: at(1) }));
    const { seq } = Socket.last.lastOf(18);
    Socket.last.receive({ op: 19, seq, body: { ...at(3), recovered: true } }, push(2), push(3));
    assert.deepEqual(events, [
      ["state", "joined"],
      ["recovered", { recovered: true, position: at(3) }],
      ["message", 2],
      ["message", 3],
    ]);
    assert.deepEqual(log.of("message"), []);
  });

  test("a message has body, op, id, room, offset and frame", () => {
    const { room } = joined();
    const handler = mock.fn();
    room.on("message", handler);
    Socket.last.receive(push(4));
    const frame = { ver: 2, seq: 0, ...push(4) };
    const expected = { body: 4, op: 5, id: "104", room: "chat-1", offset: 4, frame };
    assert.deepEqual(handler.mock.calls[0].arguments, [expected]);
  });

  test("messages of rooms need no acknowledgement", () => {
    joined();
    Socket.last.receive(push(4));
    tick(1000);
    assert.deepEqual(sent(Socket.last, 22), []);
  });

  test("what is not the room's goes to the client, with the name of its room", () => {
    const { log, events } = joined();
    Socket.last.receive({ op: 5, body: "for the key" }, push(7, "chat-2"));
    assert.deepEqual(log.of("message").map(({ body, room }) => [body, room]), [
      ["for the key", undefined],
      [7, "chat-2"],
    ]);
    assert.deepEqual(events, [["state", "joined"]]);
  });

  test("a message that the room does not keep has no offset, and moves nothing", () => {
    const { events, room } = joined();
    Socket.last.receive({ ...push(9), offset: undefined, body: "typing" }, push(4));
    assert.deepEqual(events.slice(1), [["message", "typing"], ["message", 4]]);
    assert.deepEqual(room.position, at(4));
  });

  test("a room without history is joined without a position", () => {
    const { room, events, log } = joined({ rewind: 5 }, { recovered: false });
    const told = [["state", "joined"], ["recovered", { recovered: false, position: undefined }]];
    assert.deepEqual([events, room.position], [told, undefined]);
    assert.deepEqual(log.of("error").map(({ code }) => code), ["no_history"]);
    Socket.last.receive(push(4));
    assert.deepEqual(events.at(-1), ["message", 4], "whatever the offset is of");
    assert.deepEqual(reconnect({ "chat-1": {} }).rooms, { "chat-1": { rewind: 5 } });
  });

  test("a refusal is told by state, error and the client's error event", async () => {
    const { client, log } = makeOpen();
    const room = client.room("chat-1");
    const events = logOf(room);
    answer(18, refusal("room_forbidden"));
    await settled();
    assert.deepEqual(events, [["state", "refused"]]);
    assert.equal(room.error.code, "room_forbidden");
    assert.deepEqual(log.of("error"), [room.error]);
    assert.equal(await room.leave(), true);
    Socket.last.drop();
    tick(30_000);
    Socket.last.open();
    assert.deepEqual(Socket.last.sent[0].body.rooms, []);
    assert.equal(client.room("chat-1").state, "joining");
  });

  for (const [what, end] of [
    ["is unavailable", () => answer(18, refusal("unavailable"))],
    ["does not answer", () => tick(15_000)],
  ]) {
    test(`a server that ${what} is asked again, as if it had let the room in`, async () => {
      const { client, log } = makeOpen();
      const room = client.room("chat-1", { position: at(2) });
      end();
      await settled();
      assert.equal(room.state, "joining");
      assert.equal(log.of("error").length, 1);
      tick(499);
      assert.equal(sent(Socket.last, 18).length, 1);
      tick(1);
      assert.deepEqual(Socket.last.sent.slice(-2).map(({ op, body }) => [op, body]), [
        [20, "chat-1"],
        [18, { "chat-1": at(2) }],
      ]);
      answer(18, { ...at(2), recovered: true });
      assert.equal(room.state, "joined");
    });
  }

  test("a room that was left meanwhile is not asked for again", async () => {
    const { client } = makeOpen();
    const room = client.room("chat-1");
    answer(18, refusal("unavailable"));
    await settled();
    const leaving = room.leave();
    answer(20);
    assert.equal(await leaving, true);
    tick(30_000);
    assert.equal(sent(Socket.last, 18).length, 1);
  });

  test("rooms that 8,192 bytes have no space for are joined after it, with their positions", () => {
    const { client } = make({ rooms: ["lobby"] });
    const names = Array.from({ length: 99 }, (_, n) => `a room ${n} ${"ż".repeat(60)}`);
    for (const name of names) client.room(name, { position: at(5) });
    client.connect();
    const { rooms } = accept({});
    const size = new TextEncoder().encode(JSON.stringify(Socket.last.sent[0].body)).length;
    assert.ok(size > 1024 && size <= 8192, `${size} bytes`);
    const later = sent(Socket.last, 18);
    assert.ok(later.length > 0 && later.every((body) => Object.values(body)[0].offset === 5));
    const asked = [...Object.keys(rooms), ...later.flatMap(Object.keys)];
    assert.deepEqual(asked.sort(), ["lobby", ...names].sort());
  });

  test("a session that had no room in its auth frame joins the next ones by op 18", () => {
    const { client } = make();
    client.connect();
    Socket.last.open();
    const room = client.room("chat-1", { rewind: 3 });
    Socket.last.receive({ op: 8, seq: 1 });
    assert.deepEqual(Socket.last.sent[0].body.rooms, []);
    assert.deepEqual(sent(Socket.last, 18), [{ "chat-1": { rewind: 3 } }]);
    answer(18, at(3));
    assert.equal(room.state, "joined");
  });
});

describe("the position", () => {
  test("it is that of the last message, and is asked for after a reconnect", () => {
    const { room, events } = joined();
    assert.deepEqual(room.position, at(3));
    Socket.last.receive(push(4), push(5));
    assert.deepEqual(room.position, at(5));
    const { rooms } = reconnect({ "chat-1": { ...at(7), recovered: true } });
    assert.deepEqual(rooms, { "chat-1": at(5) });
    Socket.last.receive(push(6), push(7));
    assert.deepEqual(events.slice(3), [
      ["state", "joining"],
      ["state", "joined"],
      ["recovered", { recovered: true, position: at(7) }],
      ["message", 6],
      ["message", 7],
    ]);
    assert.deepEqual(room.position, at(7));
  });

  test("a message that has come is dropped when it comes again", () => {
    const { events } = joined();
    Socket.last.receive(push(3), push(4), push(4), push(2), push(5));
    assert.deepEqual(events.slice(1), [["message", 4], ["message", 5]]);
  });

  test("recovered: false is told, and the position goes on from the told one", () => {
    const { room, events } = joined();
    Socket.last.receive(push(4));
    reconnect({ "chat-1": { ...at(1, "e2"), recovered: false } });
    assert.deepEqual(events.at(-1), ["recovered", { recovered: false, position: at(1, "e2") }]);
    assert.deepEqual(room.position, at(1, "e2"));
    Socket.last.receive(push(2));
    assert.deepEqual(events.at(-1), ["message", 2]);
    assert.deepEqual(reconnect({}).rooms, { "chat-1": at(2, "e2") });
  });

  test("a room that keeps nothing any more has no position", () => {
    const { room, events } = joined();
    reconnect({ "chat-1": { recovered: false } });
    assert.deepEqual(events.at(-1), ["recovered", { recovered: false, position: undefined }]);
    assert.equal(room.position, undefined);
    assert.deepEqual(reconnect({}).rooms, { "chat-1": {} });
  });

  test("a gap is told, and the position goes on from the told one", () => {
    const { room, events } = joined();
    Socket.last.receive({ op: 29, body: { room: "chat-1", ...at(9) } }, push(9), push(10));
    assert.deepEqual(events.slice(1), [["gap", { position: at(9) }], ["message", 10]]);
    Socket.last.receive({ op: 29, body: { room: "chat-1", ...at(4) } }, push(8));
    assert.deepEqual(events.at(-1), ["gap", { position: at(10) }], "it never goes back");
    Socket.last.receive({ op: 29, body: { room: "chat-1", ...at(1, "e2") } }, push(2));
    assert.deepEqual(events.at(-1), ["message", 2]);
    assert.deepEqual(room.position, at(2, "e2"));
  });

  test("a gap of a room that nobody has, or without a position, is nothing", () => {
    const { events, log } = joined();
    for (const body of [{ room: "chat-2", ...at(9) }, { room: "chat-1" }, null]) {
      Socket.last.receive({ op: 29, body });
    }
    assert.deepEqual([events.length, log.of("error")], [1, []]);
  });

  test("what is rewound comes once; cut off, the rest is asked for", () => {
    const { room, events } = joined({ rewind: 3 }, at(10));
    assert.deepEqual(room.position, at(7));
    Socket.last.receive(push(8), push(9));
    assert.deepEqual(events.slice(1), [["message", 8], ["message", 9]]);
    assert.deepEqual(reconnect({}).rooms, { "chat-1": at(9) });
  });

  test("a position goes before a rewind", () => {
    const { client } = make();
    client.room("chat-1", { rewind: 20, position: at(41) });
    client.connect();
    assert.deepEqual(accept({}).rooms, { "chat-1": at(41) });
  });

  test("it follows the handlers, in order, however long each takes", async () => {
    const { room, log } = joined();
    const ends = [];
    room.on("message", () => new Promise((resolve, reject) => ends.push({ resolve, reject })));
    Socket.last.receive(push(4), push(5), push(6));
    ends[1].resolve();
    await settled();
    assert.deepEqual(room.position, at(3));
    ends[0].reject(new Error("the handler failed"));
    await settled();
    assert.deepEqual(room.position, at(5));
    assert.deepEqual(log.of("error").map(({ message }) => message), ["the handler failed"]);
    assert.deepEqual(reconnect({}).rooms, { "chat-1": at(6) }, "no message comes twice");
    ends[2].resolve();
    await settled();
    assert.deepEqual(room.position, at(6));
  });

  test("it is a copy", () => {
    const { room } = joined();
    room.position.offset = 99;
    assert.deepEqual(room.position, at(3));
  });
});

describe("leaving", () => {
  test("it is told to the server, and the next session does not ask for it", async () => {
    const { client, room, events } = joined();
    const leaving = room.leave();
    assert.deepEqual(sent(Socket.last, 20), ["chat-1"]);
    Socket.last.receive(push(4)); // was under way
    answer(20);
    assert.equal(await leaving, true);
    assert.equal(await room.leave(), true);
    assert.deepEqual(events.slice(1), [["state", "left"]]);
    assert.equal(sent(Socket.last, 20).length, 1);
    Socket.last.drop();
    tick(30_000);
    Socket.last.open();
    assert.deepEqual(Socket.last.sent[0].body.rooms, []);
    assert.equal(client.state, "connecting");
  });

  test("without a session there is nothing to tell", async () => {
    const { client } = make();
    const room = client.room("chat-1");
    assert.equal(await room.leave(), false);
    client.connect();
    Socket.last.open();
    assert.deepEqual(Socket.last.sent[0].body.rooms, []);
  });

  test("left and joined again at once, it hears only what the new one asked for", () => {
    const { client, room } = joined();
    room.leave();
    const again = client.room("chat-1", { rewind: 1 });
    const events = logOf(again);
    Socket.last.receive(push(4));
    answer(20);
    answer(18, at(4));
    Socket.last.receive(push(4), push(5));
    assert.deepEqual(events, [["state", "joined"], ["message", 4], ["message", 5]]);
  });

  test("left while the auth frame is under way, it is left after it", () => {
    const { client } = make();
    const room = client.room("chat-1");
    client.connect();
    Socket.last.open();
    room.leave();
    client.room("chat-1", { rewind: 2 });
    Socket.last.receive({ op: 8, seq: 1, body: { rooms: { "chat-1": at(3) } } });
    const frames = Socket.last.sent.slice(1).map(({ op, body }) => [op, body]);
    assert.deepEqual(frames, [[20, "chat-1"], [18, { "chat-1": { rewind: 2 } }]]);
  });

  test("a session's end, and close(), keep it for the next session", () => {
    const { client, room, events } = joined();
    client.close();
    assert.equal(room.state, "joining");
    client.connect();
    accept({ "chat-1": { ...at(3), recovered: true } });
    assert.deepEqual(events.map(([, data]) => data).slice(0, 3), ["joined", "joining", "joined"]);
  });
});

describe("history", () => {
  test("it is asked for by op 24, and answered as the server does", async () => {
    const { room } = joined();
    const reading = room.history({ before: 4, limit: 2, order: "newest" });
    assert.deepEqual(sent(Socket.last, 24), [{ before: 4, limit: 2, order: "newest", room: "chat-1" }]);
    const page = { room: "chat-1", ...at(3), more: false, messages: [{ offset: 3, body: "x" }] };
    answer(24, page);
    assert.deepEqual(await reading, page);
  });

  test("a refusal rejects, and so does the want of a session", async () => {
    const { room } = joined();
    const reading = room.history();
    assert.deepEqual(sent(Socket.last, 24), [{ room: "chat-1" }]);
    answer(24, refusal("not_found"));
    await assert.rejects(reading, withCode("not_found"));
    Socket.last.drop();
    await assert.rejects(room.history(), withCode("closed"));
  });
});

describe("over a reload", () => {
  const load = (storage, options = {}) => {
    const { client } = make({ storage });
    const room = client.room("chat-1", { persist: true, ...options });
    client.connect();
    return { client, room };
  };

  test("the position is kept where ids are, and asked for by the next page", () => {
    const storage = memory();
    const { client } = load(storage, { rewind: 5 });
    assert.deepEqual(accept({ "chat-1": at(0) }).rooms, { "chat-1": { rewind: 5 } });
    Socket.last.receive(push(1), push(2));
    client.close();
    const { room } = load(storage, { rewind: 5 });
    assert.deepEqual(room.position, at(2));
    assert.deepEqual(accept({}).rooms, { "chat-1": at(2) });
  });

  test("a message whose handler was at work comes again", () => {
    const storage = memory();
    const { client, room } = load(storage);
    room.on("message", ({ offset }) => offset === 2 && new Promise(() => {}));
    accept({ "chat-1": at(0) });
    Socket.last.receive(push(1), push(2), push(3));
    client.close();
    load(storage);
    assert.deepEqual(accept({}).rooms, { "chat-1": at(1) });
  });

  test("each room and each client has a place of its own", () => {
    const storage = memory();
    const { client } = load(storage);
    client.room("chat-2", { persist: true });
    accept({ "chat-1": at(1), "chat-2": at(2) });
    assert.equal(storage.items.size, 2);
    assert.equal(make({ storage, name: "bob" }).client.room("chat-1", { persist: true }).position, undefined);
  });

  test("a position that is given goes before the kept one", () => {
    const storage = memory();
    load(storage);
    accept({ "chat-1": at(1) });
    assert.deepEqual(load(storage, { position: at(8) }).room.position, at(8));
  });

  test("nothing is kept unless that is asked for", () => {
    const storage = memory();
    load(storage, { persist: false });
    accept({ "chat-1": at(1) });
    assert.equal(storage.items.size, 0);
  });

  for (const [what, text] of [["garbage", "{"], ["no position", "7"], ["nothing", "null"]]) {
    test(`a storage with ${what} in it is none`, () => {
      const storage = { getItem: () => text, setItem: () => { throw new Error("full"); } };
      const { room } = load(storage);
      assert.deepEqual(accept({ "chat-1": at(1) }).rooms, { "chat-1": {} });
      Socket.last.receive(push(2));
      assert.deepEqual(room.position, at(2));
    });
  }
});

describe("mistakes", () => {
  for (const [what, options] of [
    ["a rewind below 0", { rewind: -1 }],
    ["a rewind that is no number", { rewind: "20" }],
    ["a rewind above what a server takes", { rewind: 100_001 }],
    ["a position without an epoch", { position: { offset: 3 } }],
    ["a position below 0", { position: at(-1) }],
    ["an option that there is not", { rewnd: 1 }],
  ]) {
    test(`${what} is refused at once`, () => {
      assert.throws(() => make().client.room("a", options), TypeError);
    });
  }

  test("the longest rewind is no mistake", () => {
    assert.equal(make().client.room("a", { rewind: 100_000 }).state, "joining");
  });

  test("a room has one owner", async () => {
    const { client } = makeOpen({ rooms: ["lobby"] });
    assert.throws(() => client.room("lobby"), TypeError);
    assert.throws(() => client.room(""), TypeError);
    const room = client.room("chat-1");
    assert.throws(() => client.room("chat-1"), TypeError);
    await assert.rejects(client.join("chat-1"), TypeError);
    await assert.rejects(client.leave("chat-1"), TypeError);
    assert.throws(() => room.on("open", () => {}), TypeError);
    room.leave();
    assert.equal(client.room("chat-1").state, "joining");
  });
});

describe("publishing", () => {
  test("it is asked for by op 32, and resolves with the message's id", async () => {
    const { room } = joined();
    const first = room.publish({ text: "hi" });
    answer(32, { room: "chat-1", id: "104" });
    const second = room.publish("typing", { op: 1000, store: "never", echo: false, id: "mine" });
    answer(32, { room: "chat-1", id: "105" });
    assert.deepEqual(await Promise.all([first, second]), ["104", "105"]);
    const [{ id, ...one }, two] = sent(Socket.last, 32);
    assert.match(id, /./);
    assert.deepEqual(one, { room: "chat-1", body: { text: "hi" } });
    assert.deepEqual(two, {
      room: "chat-1", body: "typing", op: 1000, store: "never", echo: false, id: "mine",
    });
  });

  test("ids differ, also where the pauses are not random", async () => {
    const { room } = joined();
    room.publish(1).catch(() => {});
    room.publish(1).catch(() => {});
    const [one, two] = sent(Socket.last, 32);
    assert.notEqual(one.id, two.id);
  });

  test("a refusal rejects with its code, and so does the want of a session", async () => {
    const { room } = joined();
    const publishing = room.publish(1);
    answer(32, refusal("publish_forbidden"));
    await assert.rejects(publishing, withCode("publish_forbidden"));
    Socket.last.drop();
    await assert.rejects(room.publish(1), withCode("closed"));
  });

  test("a body that is too large rejects, and is not sent", async () => {
    const { room } = joined();
    await assert.rejects(room.publish("x".repeat(2000)), withCode("too_large"));
    assert.deepEqual(sent(Socket.last, 32), []);
  });
});

describe("what servers send", () => {
  for (const { name, text, frames } of vectors.server_rooms) {
    test(`${name} is understood`, () => {
      const { client } = make();
      const seen = [];
      const rooms = [...new Set(frames.map(({ room }) => room))];
      for (const room of rooms) {
        client.room(room).on("message", ({ room, offset, id, from, op, body }) => {
          seen.push([room, offset, id, from, op, body]);
        });
      }
      client.connect();
      accept({});
      Socket.last.receiveRaw(text);
      const expected = frames.map(({ room, offset, id, from, op, body }) => {
        return [room, offset, id, from, op, body];
      });
      assert.deepEqual(seen, expected);
    });
  }
});
