// The WebSocket for Node 20: against a server that plays by RFC 6455, and against garbage.
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:net";
import { afterEach, describe, test } from "node:test";

import { NodeWebSocket } from "../../push/static/push/websocket-node.js";

const GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const left = []; // what ends with the test

afterEach(() => {
  while (left.length) left.pop()();
});

/** A frame as servers send them. `length` may lie. */
function frame(opcode, payload = "", { fin = true, rsv = 0, mask = false, length } = {}) {
  const bytes = Buffer.from(payload);
  length ??= bytes.length;
  const head = Buffer.alloc(length < 126 ? 2 : length < 65536 ? 4 : 10);
  head[0] = (fin ? 0x80 : 0) | rsv | opcode;
  head[1] = (mask ? 0x80 : 0) | (length < 126 ? length : length < 65536 ? 126 : 127);
  if (head.length === 4) head.writeUInt16BE(length, 2);
  if (head.length === 10) head.writeBigUInt64BE(BigInt(length), 2);
  return Buffer.concat([head, mask ? Buffer.alloc(4) : Buffer.alloc(0), bytes]);
}

const closing = (code, reason = "") => {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(code);
  return frame(8, Buffer.concat([bytes, Buffer.from(reason)]));
};

/** The first frame in what a client has sent: it must be masked. */
function parse(bytes) {
  if (bytes.length < 6) return undefined;
  assert.ok(bytes[1] & 0x80, "a client masks");
  const short = bytes[1] & 127;
  const at = short < 126 ? 2 : short === 126 ? 4 : 10;
  const length = at === 2 ? short : at === 4 ? bytes.readUInt16BE(2) : Number(bytes.readBigUInt64BE(2));
  if (bytes.length < at + 4 + length) return undefined;
  const mask = bytes.subarray(at, at + 4);
  const payload = Buffer.from(bytes.subarray(at + 4, at + 4 + length)).map((b, n) => b ^ mask[n & 3]);
  return { opcode: bytes[0] & 15, payload, mask, rest: bytes.subarray(at + 4 + length) };
}

/** A server for one client; `answer` makes the answer to the upgrade request. */
async function serve(answer = upgrade) {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const peer = { request: "", frames: [], socket: undefined, hasEnded: false };
  let wake = () => {};
  server.on("connection", (socket) => {
    peer.socket = socket;
    let bytes = Buffer.alloc(0);
    let isUp = false;
    socket.on("error", () => {});
    socket.on("end", () => ((peer.hasEnded = true), wake()));
    socket.on("data", (data) => {
      bytes = Buffer.concat([bytes, data]);
      const end = bytes.indexOf("\r\n\r\n");
      if (!isUp && end >= 0) {
        peer.request = bytes.subarray(0, end).toString();
        bytes = bytes.subarray(end + 4);
        isUp = true;
        socket.write(answer(peer.request));
      }
      for (let found; isUp && (found = parse(bytes)); bytes = found.rest) peer.frames.push(found);
      wake();
    });
  });
  left.push(() => (peer.socket?.destroy(), server.close()));
  peer.url = `ws://127.0.0.1:${server.address().port}/sub?a=1`;
  /** The next frame of the client. */
  peer.next = async () => {
    while (!peer.frames.length) await new Promise((resolve) => (wake = resolve));
    return peer.frames.shift();
  };
  peer.ended = async () => {
    while (!peer.hasEnded) await new Promise((resolve) => (wake = resolve));
  };
  return peer;
}

const keyOf = (request) => /^sec-websocket-key: (.*)$/im.exec(request)[1].trim();
const acceptOf = (request) => createHash("sha1").update(keyOf(request) + GUID).digest("base64");
const upgrade = (request, more = "", accept = acceptOf(request)) =>
  "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
  `Sec-WebSocket-Accept: ${accept}\r\n${more}\r\n`;

/** A client of it, with what it says. */
function connect(url, options) {
  const socket = new NodeWebSocket(url, options);
  const said = { messages: [], errors: [], closes: 0 };
  let resolve, gone;
  said.opened = new Promise((done) => (resolve = done));
  said.closed = new Promise((done) => (gone = done));
  socket.onopen = resolve;
  socket.onmessage = ({ data }) => said.messages.push(data);
  socket.onerror = (event) => said.errors.push(event);
  socket.onclose = (event) => ((said.closes += 1), gone(event));
  left.push(() => socket.close());
  return { socket, said };
}

async function open(options) {
  const peer = await serve();
  const { socket, said } = connect(peer.url, options);
  await said.opened;
  return { peer, socket, said };
}

describe("the handshake", () => {
  test("asks as RFC 6455 says, with a key of its own each time", async () => {
    const { peer, socket } = await open();
    assert.match(peer.request, /^GET \/sub\?a=1 HTTP\/1\.1\r\n/);
    assert.match(peer.request, /^upgrade: websocket\r$/im);
    assert.match(peer.request, /^connection: upgrade\r$/im);
    assert.match(peer.request, /^sec-websocket-version: 13\r?$/im);
    assert.equal(Buffer.from(keyOf(peer.request), "base64").length, 16);
    assert.equal(socket.readyState, 1);
    assert.notEqual(keyOf(peer.request), keyOf((await open()).peer.request));
  });

  for (const [what, answer, reason] of [
    ["another answer", () => "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", /answered 403/],
    ["a redirect", () => "HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\n", /answered 302/],
    ["a wrong proof", (request) => upgrade(request, "", "AAAA"), /handshake/],
    ["an extension", (request) => upgrade(request, "Sec-WebSocket-Extensions: x\r\n"), /handshake/],
    ["a subprotocol", (request) => upgrade(request, "Sec-WebSocket-Protocol: x\r\n"), /handshake/],
    ["an upgrade to something else", () => "HTTP/1.1 101 x\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n", /handshake/],
    ["what is not HTTP", () => randomBytes(300), /Parse Error/],
    ["nothing, and a lost connection", () => "", /hang up|ECONNRESET|closed/],
  ]) {
    test(`${what} is an end with its reason`, async () => {
      const peer = await serve((request) => {
        const bytes = answer(request);
        if (!bytes.length) peer.socket.destroy();
        return bytes;
      });
      const { socket, said } = connect(peer.url);
      const { code, reason: why, wasClean } = await said.closed;
      assert.deepEqual([code, wasClean, said.errors.length, said.closes], [1006, false, 1, 1]);
      assert.match(why, reason);
      assert.equal(socket.readyState, 3);
    });
  }

  test("nobody there is an end with its reason", async () => {
    const peer = await serve();
    left.pop()(); // the server
    const { code, reason } = await connect(peer.url).said.closed;
    assert.equal(code, 1006);
    assert.match(reason, /ECONNREFUSED/);
  });

  test("close() before the answer ends it", async () => {
    const peer = await serve(() => "");
    const { socket, said } = connect(peer.url);
    assert.throws(() => socket.send("x"), /not open/);
    socket.close();
    assert.equal((await said.closed).code, 1006);
    assert.equal(said.closes, 1);
  });

  test("frames that come with the answer are read", async () => {
    const peer = await serve((request) => Buffer.concat([Buffer.from(upgrade(request)), frame(1, "at once")]));
    const { said } = connect(peer.url);
    await said.opened;
    peer.socket.write(closing(1000));
    await said.closed;
    assert.deepEqual(said.messages, ["at once"]);
  });

  test("an address that is none is refused at once", () => {
    assert.throws(() => new NodeWebSocket("/sub"), TypeError);
    assert.throws(() => new NodeWebSocket("ftp://x.test/"), SyntaxError);
  });
});

describe("frames", () => {
  for (const length of [0, 1, 125, 126, 65_535, 65_536, 200_000]) {
    test(`${length} bytes go both ways`, async () => {
      const { peer, socket, said } = await open();
      const text = "z".repeat(length);
      socket.send(text);
      const { opcode, payload } = await peer.next();
      assert.deepEqual([opcode, payload.toString()], [1, text]);
      peer.socket.write(frame(1, text));
      peer.socket.write(closing(1000));
      await said.closed;
      assert.deepEqual(said.messages, [text]);
    });
  }

  test("each frame has a mask of its own", async () => {
    const { peer, socket } = await open();
    socket.send("same");
    socket.send("same");
    const [first, second] = [await peer.next(), await peer.next()];
    assert.notDeepEqual(first.mask, second.mask);
    assert.equal(second.payload.toString(), "same");
  });

  test("they may be cut anywhere", async () => {
    const { peer, said } = await open();
    const text = "ż".repeat(200);
    const bytes = Buffer.concat([frame(1, text), frame(9, "p"), frame(1, "b"), closing(4000, "bye")]);
    for (const byte of bytes) {
      peer.socket.write(Buffer.of(byte));
      await new Promise(setImmediate);
    }
    assert.deepEqual({ ...(await said.closed) }, { code: 4000, reason: "bye", wasClean: true });
    assert.deepEqual(said.messages, [text, "b"]);
  });

  test("fragments are one message, with control frames in between", async () => {
    const { peer, said } = await open();
    const [first, second] = [Buffer.from("ż").subarray(0, 1), Buffer.from("ż").subarray(1)];
    peer.socket.write(frame(1, first, { fin: false }));
    peer.socket.write(frame(9, "still there?"));
    peer.socket.write(frame(0, "", { fin: false }));
    peer.socket.write(frame(0, second));
    peer.socket.write(closing(1000));
    await said.closed;
    assert.deepEqual(said.messages, ["ż"]);
    const { opcode, payload } = await peer.next();
    assert.deepEqual([opcode, payload.toString()], [10, "still there?"]);
  });

  test("a binary message is an ArrayBuffer", async () => {
    const { peer, said } = await open();
    peer.socket.write(Buffer.concat([frame(2, "abc"), frame(10, "unasked"), closing(1000)]));
    await said.closed;
    assert.equal(said.messages.length, 1);
    assert.ok(said.messages[0] instanceof ArrayBuffer);
    assert.equal(Buffer.from(said.messages[0]).toString(), "abc");
  });
});

describe("closing", () => {
  for (const [code, reason] of [[1000, ""], [4503, "replaced: żółw"], [1014, "x"], [3000, "y".repeat(123)]]) {
    test(`the server's ${code} is told and answered`, async () => {
      const { peer, said } = await open();
      peer.socket.write(closing(code, reason));
      assert.deepEqual({ ...(await said.closed) }, { code, reason, wasClean: true });
      const { opcode, payload } = await peer.next();
      assert.deepEqual([opcode, payload.readUInt16BE()], [8, code]);
      assert.deepEqual(said.errors, []);
      await peer.ended();
    });
  }

  test("a close without a code is 1005", async () => {
    const { peer, said } = await open();
    peer.socket.write(frame(8));
    assert.equal((await said.closed).code, 1005);
    assert.equal((await peer.next()).payload.length, 0);
  });

  test("a lost connection is 1006", async () => {
    const { peer, said } = await open();
    peer.socket.destroy();
    assert.deepEqual({ ...(await said.closed) }, { code: 1006, reason: "", wasClean: false });
    assert.equal(said.errors.length, 1);
  });

  test("ours carries code and reason, and waits for the server's", async () => {
    const { peer, socket, said } = await open();
    socket.close(4000, "ż".repeat(100));
    socket.close();
    socket.send("too late");
    const { opcode, payload } = await peer.next();
    assert.deepEqual([opcode, payload.readUInt16BE()], [8, 4000]);
    assert.equal(payload.subarray(2).toString(), "ż".repeat(61));
    peer.socket.write(frame(1, "not heard any more"));
    peer.socket.write(closing(4000));
    assert.deepEqual({ ...(await said.closed) }, { code: 4000, reason: "", wasClean: true });
    assert.deepEqual([said.messages, peer.frames], [[], []]);
  });

  test("a server that does not answer ours is left", { timeout: 10_000 }, async () => {
    const { socket, said } = await open();
    socket.close();
    assert.equal((await said.closed).code, 1006);
  });

  test("what comes behind a close is not read", async () => {
    const { peer, said } = await open();
    peer.socket.write(Buffer.concat([closing(4000), frame(1, "late"), randomBytes(50)]));
    assert.equal((await said.closed).code, 4000);
    assert.deepEqual(said.messages, []);
  });
});

describe("garbage", () => {
  const bad = [
    ["a reserved bit", frame(1, "x", { rsv: 0x40 }), 1002],
    ["an unknown opcode", frame(3, "x"), 1002],
    ["an unknown control opcode", frame(11, "x"), 1002],
    ["a masked frame", frame(1, "x", { mask: true }), 1002],
    ["a continuation of nothing", frame(0, "x"), 1002],
    ["a message inside of a message", Buffer.concat([frame(1, "a", { fin: false }), frame(1, "b")]), 1002],
    ["a ping in fragments", frame(9, "x", { fin: false }), 1002],
    ["a long ping", frame(9, "x".repeat(126)), 1002],
    ["half a close code", frame(8, "x"), 1002],
    ...[0, 999, 1004, 1005, 1006, 1015, 2000, 2999, 5000, 65_535].map((code) => [
      `close code ${code}`, closing(code), 1002,
    ]),
    ["a close reason that is not UTF-8", frame(8, Buffer.of(0x0f, 0xa0, 0xff)), 1007],
    ["a text that is not UTF-8", frame(1, Buffer.of(0xc3, 0x28)), 1007],
    ["half a character", frame(1, Buffer.from("ż").subarray(0, 1)), 1007],
    ["a message above the largest", frame(1, "", { length: 1025 }), 1009],
    ["a message of 2^63 bytes", frame(1, "", { length: Number.MAX_SAFE_INTEGER }), 1009],
    ["fragments above the largest", Buffer.concat([
      frame(1, "x".repeat(1000), { fin: false }), frame(0, "x".repeat(25), { fin: false }),
    ]), 1009],
    ["too many fragments", Buffer.concat([
      frame(1, "", { fin: false }), ...Array.from({ length: 10_000 }, () => frame(0, "", { fin: false })),
    ]), 1009],
  ];
  for (const [what, bytes, code] of bad) {
    test(`${what} ends it with ${code}`, async () => {
      const { peer, said } = await open({ maxMessage: 1024 });
      peer.socket.write(bytes);
      const ending = await said.closed;
      assert.deepEqual([ending.code, ending.wasClean, said.errors.length], [code, false, 1]);
      assert.ok(ending.reason);
      assert.deepEqual(said.messages, []);
      assert.equal((await peer.next()).payload.readUInt16BE(), code);
    });
  }

  test("a message as large as may be is taken, with pings in between", async () => {
    const { peer, said } = await open({ maxMessage: 1024 });
    peer.socket.write(frame(1, "x".repeat(1000), { fin: false }));
    peer.socket.write(frame(9, "y".repeat(125)));
    peer.socket.write(Buffer.concat([frame(0, "x".repeat(24)), closing(1000)]));
    await said.closed;
    assert.deepEqual(said.messages, ["x".repeat(1024)]);
  });

  test("whatever comes, there is one end and no exception", async () => {
    for (let round = 0; round < 50; round++) {
      const { peer, said } = await open();
      peer.socket.end(randomBytes(1 + ((round * 37) % 500)));
      await said.closed;
      assert.equal(said.closes, 1);
    }
  });

  test("pings that the server does not hear the answers to do not fill the memory", async () => {
    const { peer, socket, said } = await open();
    peer.socket.pause();
    const pings = Buffer.concat(Array.from({ length: 10_000 }, () => frame(9, "x".repeat(125))));
    for (let round = 0; round < 20; round++) {
      if (!peer.socket.write(pings)) await once(peer.socket, "drain");
    }
    peer.socket.write(frame(1, "the end"));
    while (!said.messages.length) await new Promise(setImmediate);
    assert.ok(socket.bufferedAmount < 2 * 1024 * 1024, `${socket.bufferedAmount} bytes`);
    peer.socket.destroy();
    await said.closed;
  });
});
