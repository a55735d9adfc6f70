// The client over Server-Sent Events: a server of the tests' own on a port.
import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, mock, test } from "node:test";

import { EventsServer, until } from "./events-server.mjs";
import { make, tick, withCode } from "./harness.mjs";

let server;

beforeEach(async () => {
  mock.timers.reset(); // fetch needs real ones
  server = await EventsServer.start();
});
afterEach(() => server.stop());

const at = (offset, epoch = "e1") => ({ epoch, offset });

const DEFAULTS = { transports: ["sse"], WebSocket: undefined, backoff: { min: 5, max: 20 } };
const PATIENT = { timeout: 1e8 }; // for tests that move the clock by much
const mockTimers = () => mock.timers.enable({ apis: ["setTimeout", "Date"] });

/** A client, and the log of its events. */
function client(options = {}) {
  const made = make({ ...DEFAULTS, ...options }, server.url);
  made.client.connect();
  return made;
}

/** The same with an open session. */
async function open(options, rooms) {
  const made = client(options);
  await server.open(1, rooms);
  await until(() => made.client.state === "open", "the session");
  return made;
}

const isIn = (log, event, count = 1) => until(() => log.of(event).length >= count, `${count} ${event}`);

describe("a session", () => {
  test("its GET has the token in a header, and what the auth frame asks for in the query", async () => {
    const options = { rooms: ["lobby", "a,b"], device: "laptop" };
    const { client: imgo } = await open(options, { lobby: {}, "a,b": {} });
    const { query, headers, pathname } = server.streams[0];
    assert.equal(pathname, "/sub/events");
    assert.equal(headers.authorization, "Bearer abc");
    const rooms = [["rooms", "lobby"], ["rooms", "a,b"]];
    const flags = [["ack", "1"], ["retractions", "1"], ["device", "laptop"]];
    assert.deepEqual([...query], [...flags, ...rooms]);
    assert.equal(imgo.transport, "sse");
  });

  test("without a token it sends none, and one that no header can carry goes into the URL", async () => {
    await open({ token: undefined });
    assert.equal(server.streams[0].headers.authorization, undefined);
    client({ token: "zażółć 1" });
    const { query, headers } = await until(() => server.streams[1]);
    assert.deepEqual([query.get("token"), headers.authorization], ["zażółć 1", undefined]);
  });

  test("a message is handed out, and acknowledged by POST", async () => {
    const { log } = await open();
    server.message({ id: "7", body: "hello" });
    await isIn(log, "message");
    assert.equal(log.of("message")[0].body, "hello");
    assert.deepEqual((await server.posted(22)).body, ["7"]);
    const [{ headers, session }] = server.posts;
    assert.deepEqual([headers.authorization, session], ["Bearer abc", "s-1"]);
  });

  test("acknowledgements that wait are sent when it is closed", async () => {
    const { client: imgo, log } = await open();
    server.message({ id: "7" });
    await isIn(log, "message");
    imgo.close();
    assert.deepEqual((await server.posted(22)).body, ["7"]);
  });

  test("events may come in any pieces, with any line ends", async () => {
    const { log } = await open();
    const { response } = server.streams[0];
    const bytes = Buffer.from('data: {"op":5,"seq":0,"id":"1",\r\ndata: "body":"ż"}\r\n\r\n:\r\n\r\n');
    for (const byte of bytes) {
      response.write(Buffer.from([byte]));
      await new Promise((resolve) => setImmediate(resolve));
    }
    await isIn(log, "message");
    assert.equal(log.of("message")[0].body, "ż");
  });

  test("garbage ends it with an error", async () => {
    const { log } = await open();
    server.streams[0].response.write("data: {garbage\n\n");
    await isIn(log, "close");
    assert.deepEqual([log.of("error")[0].code, log.of("close")[0].code], ["protocol", 1002]);
  });

  test("op 6 says why it ends", async () => {
    const { log } = await open();
    server.send("imgo", { ver: 1, op: 6, seq: 0, body: { code: 4504, reason: "kicked", reconnect: false } });
    server.streams[0].response.end();
    await isIn(log, "close");
    assert.deepEqual(log.of("close")[0], { code: 4504, reason: "kicked", willReconnect: false, delay: 0 });
  });

  test("a stream in which nothing comes for a minute is given up", async () => {
    mockTimers();
    const { log } = await open();
    tick(59_999);
    assert.equal(log.of("close").length, 0);
    tick(1);
    assert.equal(log.of("close")[0].reason, "the stream is silent");
  });
});

describe("a token that expires", () => {
  /** A session whose token lasts for a second. */
  async function expiring(options) {
    let count = 0;
    const made = client({ token: () => `token${++count}`, ...options });
    await until(() => server.streams[0], "the stream");
    server.send("open", { session: "s-1", rooms: {}, expires_in: 1 });
    await until(() => made.client.state === "open", "the session");
    return made;
  }

  test("is renewed by POST, and further requests carry the new one", async () => {
    const { log } = await expiring();
    assert.deepEqual((await server.posted(7)).body, { token: "token2" });
    await server.reply(7, { expires_in: 60 });
    server.message({ id: "7" });
    await server.posted(22);
    const sent = server.posts.map(({ frame, headers }) => [frame.op, headers.authorization]);
    assert.deepEqual(sent, [[7, "Bearer token1"], [22, "Bearer token2"]]);
    assert.deepEqual([log.of("error"), log.of("close")], [[], []]);
  });

  test("its renewal leaves acknowledgements as they were: a failed message comes again", async () => {
    const { client: imgo, log } = await expiring();
    await server.reply(7, { expires_in: 60 });
    let failures = 1;
    imgo.on("message", () => { if (failures-- > 0) throw new Error("the disk is full"); });
    for (let count = 1; count <= 2; count++) {
      server.message({ id: "7" });
      await isIn(log, "message", count);
    }
    assert.deepEqual((await server.posted(22)).body, ["7"]);
  });

  test("and is refused: the requests keep the old one", async () => {
    const { log } = await expiring();
    await server.reply(7, { error: { code: "forbidden", message: "another key's" } });
    await isIn(log, "error");
    server.message({ id: "7" });
    await server.posted(22);
    assert.equal(server.posts.at(-1).headers.authorization, "Bearer token1");
  });
});

describe("refusals", () => {
  for (const [status, code, closes, returns] of [
    [400, "bad_request", 4500, false],
    [401, "not_authenticated", 4401, true],
    [403, "room_forbidden", 4506, false],
    [431, "too_large", 4502, false],
    [429, "too_many_attempts", 4428, true],
    [429, "too_many_sessions", 4429, true],
    [503, "unavailable", 4013, true],
    [502, undefined, 1006, true],
  ]) {
    test(`${status} ${code ?? "of a proxy"} is like the close code ${closes}`, async () => {
      server.refusal = { status, body: { code, detail: code && "Why." } };
      const { log } = client();
      await isIn(log, "close");
      const [{ code: told, reason, willReconnect }] = log.of("close");
      assert.deepEqual([told, willReconnect], [closes, returns]);
      assert.equal(reason, code ? "Why." : "HTTP 502");
    });
  }

  test("overload doubles the pause", async () => {
    server.refusal = { status: 503, body: { code: "unavailable", detail: "overloaded: come back" } };
    const { log } = client({ random: () => 1, backoff: { min: 5, max: 1000 } });
    await isIn(log, "close");
    assert.equal(log.of("close")[0].delay, 20);
  });

  test("each attempt asks for a token", async () => {
    server.refusal = { status: 401, body: { code: "not_authenticated" } };
    let count = 0;
    const { log } = client({ token: () => `token-${++count}` });
    await isIn(log, "close");
    server.refusal = undefined;
    assert.match((await until(() => server.streams[0])).headers.authorization, /^Bearer token-[2-9]/);
  });
});

describe("frames of the client", () => {
  test("a join is answered down the stream, and what follows waits for it", async () => {
    const { client: imgo } = await open();
    const joining = imgo.join("den");
    const leaving = imgo.leave("den");
    assert.equal((await server.posted(18)).body, "den");
    assert.equal(server.posts.length, 1);
    await server.reply(18);
    assert.equal(await joining, true);
    await server.reply(20);
    assert.equal(await leaving, true);
  });

  test("a slow receiver does not hold up the frames behind", async () => {
    const { client: imgo } = await open();
    const asking = imgo.request({ hi: 1 });
    await server.posted(4);
    const joining = imgo.join("den");
    await server.reply(18);
    assert.equal(await joining, true);
    await server.reply(4, { at: "last" });
    assert.deepEqual(await asking, { at: "last" });
  });

  test("what has no reply in 5 s is sent again, as it was", async () => {
    mockTimers();
    const { client: imgo } = await open(PATIENT);
    const joining = imgo.join("den");
    const first = await server.posted(18);
    // The 202 is on its way; then the clock of the reply runs.
    await until(() => { tick(5000); return server.posts.length > 1; }, "a second POST");
    assert.deepEqual(await server.posted(18, 2), first);
    await server.reply(18);
    assert.equal(await joining, true);
  });

  test("what the server can not take now is sent again", async () => {
    const { client: imgo } = await open();
    server.postStatus = (_, count) => (count < 3 ? 503 : 202);
    const asking = imgo.request(1);
    await server.reply(4, "done", 3);
    assert.equal(await asking, "done");
  });

  test("a session that is gone ends at once", async () => {
    const { client: imgo, log } = await open();
    server.postStatus = () => ({ status: 404, body: { code: "not_found" } });
    await assert.rejects(imgo.request(1), withCode("closed"));
    assert.equal(log.of("close")[0].willReconnect, true);
  });

  test("a token that does not count any more ends it with 4401", async () => {
    const { client: imgo, log } = await open();
    server.postStatus = () => ({ status: 401, body: { code: "not_authenticated", detail: "Why." } });
    await assert.rejects(imgo.request(1), withCode("closed"));
    assert.equal(log.of("close")[0].code, 4401);
  });

  test("a refusal rejects", async () => {
    const { client: imgo } = await open();
    server.postStatus = () => ({ status: 413, body: { code: "too_large", detail: "Why." } });
    await assert.rejects(imgo.request(1), withCode("too_large"));
    assert.equal(imgo.state, "open");
  });
});

describe("coming back", () => {
  const room = (imgo, name, options) => {
    const made = imgo.room(name, options);
    const seen = [];
    made.on("message", ({ offset }) => seen.push(offset));
    made.on("recovered", ({ recovered }) => seen.push(recovered));
    return { made, seen };
  };
  const back = async (number, rooms) => {
    server.cut();
    return server.open(number, rooms);
  };

  test("rooms with one rewind go into the query, and the last id resumes them", async () => {
    const { client: imgo } = make(DEFAULTS, server.url);
    const { made, seen } = room(imgo, "chat-1", { rewind: 2 });
    imgo.connect();
    const { query } = await server.open(1, { "chat-1": at(3) });
    assert.deepEqual([query.get("rewind"), query.getAll("rooms")], ["2", ["chat-1"]]);
    server.message({ room: "chat-1", offset: 3 });
    server.id("1,5,x.e1.3");
    server.message({ room: "chat-1", offset: 4 });
    await until(() => made.position?.offset === 4);
    const again = await back(2, { "chat-1": { ...at(5), recovered: true } });
    assert.equal(again.headers["last-event-id"], "1,5,x.e1.3");
    assert.deepEqual([again.query.get("rewind"), again.query.getAll("rooms")], [null, ["chat-1"]]);
    server.message({ room: "chat-1", offset: 4 }); // the id was older than this
    server.message({ room: "chat-1", offset: 5 });
    await until(() => made.position.offset === 5);
    assert.deepEqual(seen, [3, 4, true, 5]);
  });

  test("a position that no id covers is asked for by op 18", async () => {
    const { client: imgo } = make(DEFAULTS, server.url);
    const { made, seen } = room(imgo, "chat-1", { position: at(7) });
    imgo.connect();
    const { query } = await server.open(1, {});
    assert.deepEqual(query.getAll("rooms"), []);
    assert.deepEqual((await server.posted(18)).body, { "chat-1": at(7) });
    await server.reply(18, { ...at(8), recovered: true });
    server.message({ room: "chat-1", offset: 8 });
    await until(() => made.position.offset === 8);
    assert.deepEqual(seen, [true, 8]);
    assert.equal(made.state, "joined");
  });

  test("a room that was left is not resumed for whoever comes to it anew", async () => {
    const { client: imgo } = await open({ rooms: ["chat-1"] }, { "chat-1": at(3) });
    server.id("1,5,x.e1.3");
    const leaving = imgo.leave("chat-1");
    await server.reply(20);
    await leaving;
    const { query } = await back(2, {});
    assert.deepEqual(query.getAll("rooms"), []);
    room(imgo, "chat-1", { rewind: 1 });
    assert.deepEqual((await server.posted(18)).body, { "chat-1": { rewind: 1 } });
  });

  test("rooms that a query has no space for are joined after it", async () => {
    const rooms = Array.from({ length: 60 }, (_, n) => `${"room".repeat(30)} ${n}`);
    client({ rooms, maxBody: 20_000 });
    const { query } = await server.open(1, {});
    const asked = query.getAll("rooms");
    assert.ok(asked.length > 20 && asked.length < 40, `${asked.length} rooms`);
    for (let number = 1; number <= 60 - asked.length; number++) await server.reply(18, {}, number);
    const joined = server.posts.map(({ frame }) => frame.body);
    assert.deepEqual([...asked, ...joined].sort(), rooms.sort());
  });

  test("without acknowledgements, what comes again behind an id is handed out once", async () => {
    const { log } = await open({ ack: false });
    assert.equal(server.streams[0].query.get("ack"), null);
    server.message({ id: "1" });
    server.id("1,5");
    server.message({ id: "2" });
    await isIn(log, "message", 2);
    await back(2, {});
    server.message({ id: "2" });
    server.message({ id: "3" });
    await isIn(log, "message", 3);
    assert.deepEqual(log.of("message").map(({ id }) => id), ["1", "2", "3"]);
  });
});

describe("a proxy that holds events back", () => {
  for (const isSilent of [false, true]) {
    test(`is reported, ${isSilent ? "without" : "with"} a head of the response`, async () => {
      server.isSilent = isSilent;
      const { log } = client({ random: () => 1, timeout: 200 });
      await isIn(log, "error");
      assert.equal(log.of("error")[0].code, "buffered");
      assert.match(log.of("error")[0].message, /turn off its buffering/);
      const [{ delay, willReconnect }] = log.of("close");
      assert.deepEqual([delay, willReconnect], [20, true], "the pause doubles");
    });
  }
});
