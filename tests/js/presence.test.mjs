// Who is in a room: the list, its versions, and the events that tell how it changes.
import assert from "node:assert/strict";
import { describe, mock, test } from "node:test";

import { settled } from "./fake-socket.mjs";
import { Socket, make, tick } from "./harness.mjs";

const ROOM = "chat-1";
const EVENTS = ["join", "leave", "change", "update"];
const refusal = (code) => ({ error: { code, message: "not now" } });
const members = (infos) => Object.entries(infos).map(([key, name]) => ({ key, info: { name } }));
const snapshot = (version, infos, more) => {
  const all = members(infos);
  return { room: ROOM, version, count: all.length, members: all, ...more };
};
const change = (base, version, joined, left, count) =>
  ({ room: ROOM, base, version, joined: members(joined), left, count });
const asked = () => Socket.last.sent.filter(({ op }) => op === 26);
const tell = (body) => Socket.last.receive({ op: 28, body });
const listOf = ({ presence }) => [...presence].map(({ key, info }) => `${key}=${info.name}`).join(" ");

/** Answer the newest question that has no answer yet. */
function answer(body) {
  Socket.last.receive({ op: 27, seq: asked().at(-1).seq, body });
  return settled();
}

async function open(client) {
  client.connect();
  Socket.last.open();
  Socket.last.receive({ op: 8, seq: Socket.last.lastOf(7).seq, body: { rooms: { [ROOM]: {} } } });
  await settled();
}

async function reconnect(client) {
  Socket.last.drop();
  await settled();
  tick(30_000);
  await open(client);
}

/** A room whose presence a page follows; `events` has "join ann", and "update" at the end. */
function follow(options) {
  const made = make(options);
  const room = made.client.room(ROOM);
  const events = [];
  for (const event of EVENTS) {
    room.presence.on(event, ({ key }) => events.push(key ? `${event} ${key}` : event));
  }
  return { ...made, room, events, presence: room.presence };
}

async function followed(first = snapshot("e.1", { ann: "Ann", bob: "Bob" })) {
  const made = follow();
  await open(made.client);
  await answer(first);
  made.events.splice(0);
  return made;
}

describe("the list", () => {
  test("is asked for when the room is joined, and is an update without joins", async () => {
    const made = follow();
    assert.equal(made.presence.count, 0);
    await open(made.client);
    assert.deepEqual(asked().map(({ body }) => body), [ROOM]);
    await answer(snapshot("e.1", { ann: "Ann", bob: "Bob" }));
    assert.equal(listOf(made), "ann=Ann bob=Bob");
    assert.deepEqual(made.events, ["update"]);
    assert.equal(made.presence, made.room.presence);
    assert.deepEqual(made.presence.get("ann"), { key: "ann", info: { name: "Ann" } });
    assert.deepEqual([made.presence.has("eve"), made.presence.count], [false, 2]);
    assert.deepEqual([made.presence.truncated, made.presence.settling], [false, false]);
  });

  test("is not asked for by pages that do not read it", async () => {
    const { client } = make();
    client.room(ROOM);
    await open(client);
    tell(change("e.1", "e.2", { ann: "Ann" }, [], 1));
    assert.deepEqual(asked(), []);
  });

  test("is asked for at once in a room that is joined already", async () => {
    const { client } = make();
    const room = client.room(ROOM);
    await open(client);
    room.presence.on("update", () => {});
    await settled();
    assert.equal(asked().length, 1);
  });

  test("follows changes: first who leaves, then the others, then one update", async () => {
    const made = await followed();
    tell(change("e.1", "e.4", { eve: "Eve", ann: "Anna" }, ["bob"], 2));
    assert.equal(listOf(made), "ann=Anna eve=Eve");
    assert.deepEqual(made.events, ["leave bob", "change ann", "join eve", "update"]);
  });

  test("a change event has the info before, and handlers see the whole new list", async () => {
    const made = await followed();
    const seen = [];
    made.presence.on("change", (data) => seen.push(data, listOf(made)));
    tell(change("e.1", "e.2", { ann: "Anna", eve: "Eve" }, [], 3));
    assert.deepEqual(seen, [
      { key: "ann", info: { name: "Anna" }, before: { name: "Ann" } },
      "ann=Anna bob=Bob eve=Eve",
    ]);
  });

  test("a key that came back with the same info is no event", async () => {
    const made = await followed();
    tell(change("e.1", "e.3", { ann: "Ann" }, [], 2));
    assert.deepEqual(made.events, []);
    tell(change("e.3", "e.4", {}, ["ann"], 1));
    assert.deepEqual(made.events, ["leave ann", "update"]);
  });

  test("a handler that throws is an error of the client, and the others are told", async () => {
    const made = await followed();
    made.presence.on("join", () => { throw new Error("no space on the page"); });
    tell(change("e.1", "e.2", { eve: "Eve" }, [], 3));
    assert.equal(made.log.of("error")[0].message, "no space on the page");
    assert.deepEqual(made.events, ["join eve", "update"]);
    assert.throws(() => made.presence.on("jion", () => {}), TypeError);
  });

  test("is empty after the room is left", async () => {
    const made = await followed();
    made.room.leave();
    await settled();
    assert.deepEqual([listOf(made), made.presence.count, made.events], ["", 0, ["update"]]);
  });

  test("a reply behind the leave fills nothing", async () => {
    const made = follow();
    await open(made.client);
    made.room.leave();
    await answer(snapshot("e.1", { ann: "Ann" }));
    assert.deepEqual([listOf(made), made.events], ["", []]);
  });
});

describe("versions", () => {
  test("a change that is not newer is ignored", async () => {
    const made = await followed(snapshot("e.5", { ann: "Ann" }));
    tell(change("e.3", "e.4", { eve: "Eve" }, [], 2));
    tell(change("e.4", "e.5", { ann: "Ann" }, [], 1));
    tick(60_000);
    assert.deepEqual([made.events, asked().length], [[], 1]);
  });

  test("after a change that does not fit the list is asked for once, within a second", async () => {
    const made = await followed();
    tell(change("e.2", "e.3", { eve: "Eve" }, [], 3));
    tell(change("e.3", "e.4", { kim: "Kim" }, [], 4));
    assert.equal(asked().length, 1);
    tick(1000);
    assert.equal(asked().length, 2);
    tell(change("e.4", "e.5", { lee: "Lee" }, [], 5));
    tick(14_000); // less than the time for a reply
    assert.equal(asked().length, 2);
    await answer(snapshot("e.5", { ann: "Ann", bob: "Bob", eve: "Eve", kim: "Kim", lee: "Lee" }));
    assert.deepEqual(made.events, ["join eve", "join kim", "join lee", "update"]);
    tell(change("e.5", "e.6", {}, ["kim"], 4));
    assert.deepEqual(made.events.slice(-2), ["leave kim", "update"]);
  });

  test("nor is one lost that comes in the same moment as the list", async () => {
    const { client } = follow();
    await open(client);
    const body = snapshot("e.1", { ann: "Ann" });
    const late = { op: 28, body: change("e.2", "e.3", {}, ["ann"], 0) };
    Socket.last.receive({ op: 27, seq: asked()[0].seq, body }, late);
    tick(1000);
    assert.equal(asked().length, 2);
  });

  test("the pauses grow while that does not help, and one that fits ends it", async () => {
    mock.method(Math, "random", () => 1);
    await followed();
    const waited = async (ms, count) => {
      tell(change("e.90", "e.91", {}, [], 2));
      tick(ms - 1);
      assert.equal(asked().length, count);
      tick(1);
      assert.equal(asked().length, count + 1);
      await answer(snapshot("e.1", { ann: "Ann", bob: "Bob" }));
    };
    const pauses = [1000, 2000, 4000, 8000, 16_000, 30_000, 30_000];
    for (const [n, ms] of pauses.entries()) await waited(ms, n + 1);
    tell(change("e.1", "e.2", {}, [], 2));
    await waited(1000, 8);
  });

  test("another epoch does not fit, whatever its number", async () => {
    await followed(snapshot("e.5", { ann: "Ann" }));
    tell(change("f.1", "f.2", { eve: "Eve" }, [], 2));
    tick(1000);
    assert.equal(asked().length, 2);
  });

  test("a reset replaces the list, whatever version it has", async () => {
    const made = await followed();
    tell({ ...snapshot("f.1", { bob: "Bob", eve: "Eve" }), reset: true });
    assert.deepEqual(made.events, ["leave ann", "join eve", "update"]);
    tell(change("f.1", "f.2", {}, ["eve"], 1));
    assert.equal(listOf(made), "bob=Bob");
  });
});

describe("over a reconnect", () => {
  test("the list stays, and only what differs is told", async () => {
    const made = await followed(snapshot("e.1", { ann: "Ann", bob: "Bob", eve: "Eve" }));
    Socket.last.drop();
    await settled();
    assert.equal(listOf(made), "ann=Ann bob=Bob eve=Eve");
    await reconnect(made.client);
    assert.equal(asked().length, 1);
    await answer(snapshot("e.9", { ann: "Ann", eve: "Eva", kim: "Kim" }));
    assert.deepEqual(made.events, ["leave bob", "change eve", "join kim", "update"]);
    await reconnect(made.client);
    await answer(snapshot("e.9", { ann: "Ann", eve: "Eva", kim: "Kim" }));
    assert.equal(made.events.length, 4, "who stayed causes no event");
  });

  test("changes before the reply are ignored, and a reply of another node may be older", async () => {
    const made = await followed(snapshot("e.9", { ann: "Ann" }));
    await reconnect(made.client);
    tell(change("e.7", "e.8", { eve: "Eve" }, [], 2));
    assert.deepEqual(made.events, []);
    await answer(snapshot("e.8", { ann: "Ann", eve: "Eve" }));
    tell(change("e.8", "e.9", {}, ["eve"], 1));
    assert.equal(listOf(made), "ann=Ann");
    assert.deepEqual(made.events, ["join eve", "update", "leave eve", "update"]);
  });

  test("a question whose session has ended is asked by the next one, without an error", async () => {
    const made = follow();
    await open(made.client);
    await reconnect(made.client);
    assert.equal(asked().length, 1);
    await answer(snapshot("e.1", { ann: "Ann" }));
    assert.deepEqual([made.log.of("error"), listOf(made)], [[], "ann=Ann"]);
  });
});

describe("large rooms, and losses of the server", () => {
  test("above the limit there is a count without a list, and nobody leaves", async () => {
    const made = await followed();
    tell({ room: ROOM, base: "e.1", version: "e.2", count: 1001, truncated: true });
    assert.deepEqual([made.presence.truncated, made.presence.count, listOf(made)], [true, 1001, ""]);
    tell({ room: ROOM, base: "e.2", version: "e.3", count: 1002, truncated: true });
    assert.deepEqual([made.presence.count, made.events], [1002, ["update", "update"]]);
    tell({ ...snapshot("e.4", { ann: "Ann" }), reset: true });
    assert.deepEqual([made.presence.truncated, listOf(made)], [false, "ann=Ann"]);
    assert.deepEqual(made.events.slice(2), ["update"], "and nobody joins with the list");
  });

  test("a snapshot without a list ends the list", async () => {
    const made = await followed();
    await reconnect(made.client);
    await answer({ room: ROOM, version: "e.7", count: 5000, truncated: true });
    assert.deepEqual([made.presence.count, listOf(made), made.events], [5000, "", ["update"]]);
  });

  test("while the server collects its data nobody leaves, and the list is asked for again", async () => {
    const made = await followed();
    await reconnect(made.client);
    await answer(snapshot("f.1", { bob: "Bob", eve: "Eve" }, { settling: true }));
    assert.deepEqual([made.events, made.presence.settling], [["join eve", "update"], true]);
    assert.deepEqual([listOf(made), made.presence.count], ["ann=Ann bob=Bob eve=Eve", 3]);
    tick(20_000);
    assert.equal(asked().length, 2);
    await answer(snapshot("f.3", { bob: "Bob", eve: "Eve" }));
    assert.deepEqual(made.events.slice(2), ["leave ann", "update"]);
    assert.equal(made.presence.settling, false);
    tick(60_000);
    assert.equal(asked().length, 2);
  });

  test("or until it sends its list", async () => {
    const made = await followed();
    await reconnect(made.client);
    await answer(snapshot("f.1", { bob: "Bob" }, { settling: true }));
    tell({ ...snapshot("f.3", { ann: "Ann", bob: "Bob" }), reset: true });
    assert.deepEqual([made.events, made.presence.settling], [["update", "update"], false]);
    tick(60_000);
    assert.equal(asked().length, 1);
  });
});

describe("refusals", () => {
  test("a room without presence is an error, once", async () => {
    const made = follow();
    await open(made.client);
    await answer(refusal("not_found"));
    tick(14_000);
    assert.deepEqual(made.log.of("error").map(({ code }) => code), ["not_found"]);
    assert.equal(asked().length, 1);
  });

  test("what is unavailable is asked for again", async () => {
    const made = follow();
    await open(made.client);
    await answer(refusal("unavailable"));
    tick(1000);
    assert.equal(asked().length, 2);
    await answer(snapshot("e.1", { ann: "Ann" }));
    assert.deepEqual([made.log.of("error").length, listOf(made)], [1, "ann=Ann"]);
  });

  test("a page may ask itself, and learns when the list is up to date, or why not", async () => {
    const made = await followed();
    const refreshing = made.presence.refresh();
    await settled();
    await answer(snapshot("e.2", { bob: "Bob" }));
    await refreshing;
    assert.equal(listOf(made), "bob=Bob");
    made.client.close();
    await assert.rejects(made.presence.refresh(), { code: "closed" });
  });

  test("without a session nothing is asked, and nothing waits", async () => {
    const made = await followed();
    tell(change("e.7", "e.8", {}, [], 2));
    made.client.close();
    await settled();
    tick(60_000);
    assert.equal(asked().length, 1);
    assert.deepEqual(made.log.of("error"), []);
  });
});

// A server with a truth, and a network that loses and repeats what it sends.

const MAX = 6; // members that are listed

function randomOf(seed) {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

class Truth {
  members = new Map();
  epoch = 1;
  number = 1;
  last; // the frame before

  constructor(random) {
    this.random = random;
  }

  get version() {
    return `e${this.epoch}.${this.number}`;
  }

  get isShort() {
    return this.members.size > MAX;
  }

  body() {
    const all = [...this.members].map(([key, name]) => ({ key, info: { name } }));
    const list = this.isShort ? { truncated: true } : { members: all };
    return { room: ROOM, version: this.version, count: all.length, ...list };
  }

  /** Change up to three keys; returns op 28. */
  step() {
    const [base, wasShort, before] = [this.version, this.isShort, new Map(this.members)];
    for (let n = this.random(3); n >= 0; n--) {
      const key = "abcdefghi"[this.random(9)];
      if (this.members.has(key) && this.random(3)) this.members.delete(key);
      else this.members.set(key, this.random(4));
      this.number++;
    }
    if (!this.isShort && wasShort) return { ...this.body(), reset: true };
    if (this.isShort) return { ...this.body(), base };
    const differs = ([key, name]) => before.get(key) !== name || this.random(5) === 0;
    const joined = members(Object.fromEntries([...this.members].filter(differs)));
    const left = [...before.keys()].filter((key) => !this.members.has(key));
    return { room: ROOM, base, version: this.version, joined, left, count: this.members.size };
  }

  /** Lose all data, and collect it again. */
  restart() {
    this.epoch++;
    this.number = 1;
    return { ...this.body(), reset: true };
  }
}

/** What a page knows that sees only the events: the list at first, then what is told. */
function mirrorOf(presence) {
  let list;
  const check = (isRight, what) => assert.ok(isRight, what);
  presence.on("join", ({ key, info }) => {
    check(!list.has(key), `${key} joined twice`);
    list.set(key, info.name);
  });
  presence.on("leave", ({ key }) => check(list.delete(key), `${key} left twice`));
  presence.on("change", ({ key, info, before }) => {
    check(list.get(key) === before.name && before.name !== info.name, `${key} did not change`);
    list.set(key, info.name);
  });
  presence.on("update", () => {
    const now = new Map([...presence].map(({ key, info }) => [key, info.name]));
    if (presence.truncated) list = undefined;
    else list ??= now;
    if (list) assert.deepEqual([...list].sort(), [...now].sort());
  });
}

test("whatever is lost or repeated, the list becomes the server's, and its events say how", async () => {
  for (let seed = 1; seed <= 40; seed++) {
    const random = randomOf(seed);
    const truth = new Truth(random);
    const { client, room, log } = follow();
    mirrorOf(room.presence);
    truth.step();
    await open(client);
    let answered = new Set();
    const reply = async () => {
      for (const { seq } of asked()) {
        if (answered.has(seq)) continue;
        answered.add(seq);
        Socket.last.receive({ op: 27, seq, body: truth.body() });
      }
      await settled();
    };
    for (let step = 0; step < 60; step++) {
      const chance = random(20);
      const body = chance === 0 ? truth.restart() : truth.step();
      if (chance !== 1 && chance !== 2) tell(body); // else it is lost
      if (chance === 3) tell(body); // twice
      if (chance === 4) {
        await reconnect(client);
        answered = new Set();
      }
      if (chance > 4) await reply();
      if (chance > 10) tick(300);
      await settled();
    }
    tell(truth.step());
    await reply();
    tick(30_000);
    await reply();
    const known = new Map([...room.presence].map(({ key, info }) => [key, info.name]));
    const expected = truth.isShort ? new Map() : truth.members;
    assert.deepEqual([...known].sort(), [...expected].sort(), `seed ${seed}`);
    assert.deepEqual([room.presence.count, log.of("error")], [truth.members.size, []], `seed ${seed}`);
    client.close();
    await settled();
  }
});
