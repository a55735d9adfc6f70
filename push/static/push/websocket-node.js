/**
 * A WebSocket for Node 20, which has none of its own: as much of one as imgo.js needs, on RFC 6455.
 * Browsers never load it. Unlike theirs, its `close` event tells what was wrong.
 */
import { createHash, randomBytes } from "node:crypto";
import http from "node:http";
import https from "node:https";

const MAX_MESSAGE = 16 * 1024 * 1024; // bytes
const MAX_FRAGMENTS = 10_000; // of one message: each costs more memory than its bytes
const MAX_UNREAD = 1024 * 1024; // bytes of ours that the server has not read; then no more pongs
const CLOSE_TIMEOUT = 3000; // ms until a server that does not close is left
const GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"; // RFC 6455's

const [CONNECTING, OPEN, CLOSING, CLOSED] = [0, 1, 2, 3];
const Opcode = { CONTINUATION: 0, TEXT: 1, BINARY: 2, CLOSE: 8, PING: 9, PONG: 10 };

/** Why the connection is given up: a close code and a reason. */
class Failure extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

export class NodeWebSocket {
  onopen = null;
  onmessage = null; // {data}: a string, or an ArrayBuffer
  onerror = null;
  onclose = null; // {code, reason, wasClean}

  #state = CONNECTING;
  #maxMessage;
  #request;
  #socket;
  #reader;
  #ending = { code: 1006, reason: "" };
  #isDeaf = false; // what comes behind a close frame or a mistake is not read
  #wasClean = false;
  #closeTimer;

  /**
   * @param {string} url `ws:` or `wss:`
   * @param {{maxMessage?: number}} [options] bytes of the largest message that is taken
   */
  constructor(url, { maxMessage = MAX_MESSAGE } = {}) {
    const target = new URL(url);
    if (!["ws:", "wss:"].includes(target.protocol)) throw new SyntaxError(`no WebSocket: ${url}`);
    target.protocol = target.protocol.replace("ws", "http");
    this.#maxMessage = maxMessage;
    this.#connect(target);
  }

  get readyState() {
    return this.#state;
  }

  /** Bytes that were sent and that the kernel has not taken yet. */
  get bufferedAmount() {
    return this.#socket?.writableLength ?? 0;
  }

  /** Send a text message; on its way to the end it is dropped, as by a browser. */
  send(text) {
    if (this.#state === CONNECTING) throw new Error("the WebSocket is not open yet");
    if (this.#state === OPEN) this.#write(Opcode.TEXT, Buffer.from(text));
  }

  close(code = 1000, reason = "") {
    if (this.#state === CONNECTING) {
      this.#state = CLOSING;
      this.#request.destroy();
    } else if (this.#state === OPEN) {
      this.#sendClose(code, reason);
    }
  }

  // The handshake

  #connect(target) {
    const key = randomBytes(16).toString("base64");
    const headers = {
      Connection: "Upgrade",
      Upgrade: "websocket",
      "Sec-WebSocket-Version": "13",
      "Sec-WebSocket-Key": key,
    };
    const { request } = target.protocol === "https:" ? https : http;
    this.#request = request(target, { headers, agent: false })
      .on("upgrade", (response, socket, head) => this.#upgraded(key, response, socket, head))
      .on("response", (response) => {
        response.destroy();
        this.#closed(`the server answered ${response.statusCode}`);
      })
      // Node tries several addresses of a name; that failure has no message.
      .on("error", (error) => this.#closed(error.message || error.code))
      .on("close", () => this.#socket ?? this.#closed("closed before it was open"));
    this.#request.end();
  }

  #upgraded(key, { headers }, socket, head) {
    const expected = createHash("sha1").update(key + GUID).digest("base64");
    const isGood =
      headers.upgrade?.toLowerCase() === "websocket" &&
      headers["sec-websocket-accept"] === expected &&
      !headers["sec-websocket-extensions"] && // none was asked for
      !headers["sec-websocket-protocol"];
    if (!isGood || this.#state !== CONNECTING) {
      socket.on("error", () => {}).destroy();
      this.#closed("the server's handshake is wrong");
      return;
    }
    this.#socket = socket;
    this.#reader = new Reader(this.#maxMessage);
    this.#state = OPEN;
    socket.setTimeout(0);
    socket.setNoDelay(true);
    socket.on("data", (data) => this.#received(data));
    socket.on("error", (error) => (this.#ending.reason ||= error.message));
    socket.on("close", () => this.#closed());
    this.onopen?.({});
    if (head.length) this.#received(head);
  }

  // Frames

  #received(data) {
    if (this.#isDeaf) return;
    try {
      for (const { opcode, payload } of this.#reader.read(data)) {
        this.#take(opcode, payload);
        if (this.#isDeaf) return;
      }
    } catch (error) {
      if (!(error instanceof Failure)) throw error; // a handler's
      this.#isDeaf = true;
      this.#ending = { code: error.code, reason: error.message };
      if (this.#state === OPEN) this.#sendClose(error.code, error.message);
      this.#socket.destroySoon();
    }
  }

  #take(opcode, payload) {
    if (opcode === Opcode.PING) {
      if (this.bufferedAmount < MAX_UNREAD) this.#write(Opcode.PONG, payload);
    } else if (opcode === Opcode.CLOSE) {
      this.#ending = payload;
      this.#isDeaf = this.#wasClean = true;
      if (this.#state === OPEN) this.#sendClose(payload.code === 1005 ? undefined : payload.code);
      this.#socket.end();
    } else if (opcode !== Opcode.PONG && this.#state === OPEN) {
      this.onmessage?.({ data: payload });
    }
  }

  #sendClose(code, reason = "") {
    this.#state = CLOSING;
    const payload = Buffer.alloc(code === undefined ? 0 : 2);
    if (code !== undefined) payload.writeUInt16BE(code);
    // As long as a close frame may carry one, and not half a character.
    const text = Buffer.from(reason).subarray(0, 123).toString().replace(/\ufffd+$/, "");
    this.#write(Opcode.CLOSE, Buffer.concat([payload, Buffer.from(text)]));
    this.#closeTimer = setTimeout(() => this.#socket.destroy(), CLOSE_TIMEOUT);
  }

  #write(opcode, payload) {
    if (!this.#socket.writable) return;
    const { length } = payload;
    const head = Buffer.alloc(length < 126 ? 2 : length < 65536 ? 4 : 10);
    head[0] = 0x80 | opcode;
    head[1] = 0x80 | (head.length === 2 ? length : head.length === 4 ? 126 : 127);
    if (head.length === 4) head.writeUInt16BE(length, 2);
    if (head.length === 10) head.writeBigUInt64BE(BigInt(length), 2);
    const mask = randomBytes(4);
    const masked = Buffer.from(payload);
    for (let place = 0; place < length; place++) masked[place] ^= mask[place & 3];
    this.#socket.write(Buffer.concat([head, mask, masked]));
  }

  /** The one end, told once. */
  #closed(reason) {
    if (this.#state === CLOSED) return;
    this.#state = CLOSED;
    clearTimeout(this.#closeTimer);
    if (reason) this.#ending.reason ||= reason;
    if (!this.#wasClean) this.onerror?.({ message: this.#ending.reason });
    this.onclose?.({ ...this.#ending, wasClean: this.#wasClean });
  }
}

/** Bytes in, whole messages and control frames out. */
class Reader {
  #maxMessage;
  #chunks = [];
  #size = 0;
  #need = 2; // bytes until the next step can be made
  #opcode; // of the message that fragments are coming of
  #fragments = [];
  #length = 0; // bytes of the fragments

  constructor(maxMessage) {
    this.#maxMessage = maxMessage;
  }

  /** Throws a `Failure` for what a server must not send. */
  *read(chunk) {
    this.#chunks.push(chunk);
    this.#size += chunk.length;
    while (this.#size >= this.#need) {
      const data = this.#chunks.length === 1 ? this.#chunks[0] : Buffer.concat(this.#chunks);
      const head = readHead(data);
      if (head.opcode < 8 && head.length > this.#maxMessage - this.#length) {
        throw new Failure(1009, "the message is too large");
      }
      this.#need = head.size + (head.length ?? 0);
      if (data.length < this.#need || head.length === undefined) {
        this.#chunks = [data];
        continue;
      }
      const payload = data.subarray(head.size, this.#need);
      this.#chunks = [data.subarray(this.#need)];
      this.#size -= this.#need;
      this.#need = 2;
      const whole = head.opcode < 8 ? this.#join(head, payload) : readControl(head, payload);
      if (whole) yield whole;
    }
  }

  /** A message with this fragment as its last, or undefined. */
  #join({ opcode, isFinal }, payload) {
    const isFirst = opcode !== Opcode.CONTINUATION;
    if (isFirst !== (this.#opcode === undefined)) {
      throw new Failure(1002, "a fragment is out of place");
    }
    this.#opcode ??= opcode;
    if (this.#fragments.push(payload) > MAX_FRAGMENTS) {
      throw new Failure(1009, "the message has too many fragments");
    }
    this.#length += payload.length;
    if (!isFinal) return undefined;
    const bytes = Buffer.concat(this.#fragments);
    const isText = this.#opcode === Opcode.TEXT;
    const whole = { opcode: this.#opcode, payload: isText ? utf8(bytes) : arrayBuffer(bytes) };
    this.#opcode = undefined;
    this.#fragments = [];
    this.#length = 0;
    return whole;
  }
}

/** `size`: bytes of the header; `length`: of the payload, undefined while that is not known. */
function readHead(data) {
  const opcode = data[0] & 15;
  const isFinal = data[0] >= 128;
  const short = data[1] & 127;
  if (data[0] & 0x70) throw new Failure(1002, "a reserved bit is set");
  if (data[1] & 0x80) throw new Failure(1002, "a server must not mask");
  if (!Object.values(Opcode).includes(opcode)) throw new Failure(1002, `opcode ${opcode}`);
  if (opcode > 7 && (!isFinal || short > 125)) throw new Failure(1002, "a bad control frame");
  const size = short < 126 ? 2 : short === 126 ? 4 : 10;
  let length;
  if (size === 2) length = short;
  else if (data.length >= size) {
    length = size === 4 ? data.readUInt16BE(2) : Number(data.readBigUInt64BE(2));
  }
  return { opcode, isFinal, size, length };
}

function readControl({ opcode }, payload) {
  if (opcode !== Opcode.CLOSE) return { opcode, payload };
  if (!payload.length) return { opcode, payload: { code: 1005, reason: "" } };
  const code = payload.length > 1 ? payload.readUInt16BE() : 0;
  const isKnown = code >= 1000 && code <= 1014 && ![1004, 1005, 1006].includes(code);
  if (!isKnown && !(code >= 3000 && code <= 4999)) throw new Failure(1002, "a bad close code");
  return { opcode, payload: { code, reason: utf8(payload.subarray(2)) } };
}

const arrayBuffer = ({ buffer, byteOffset, length }) =>
  buffer.slice(byteOffset, byteOffset + length);

const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

function utf8(bytes) {
  try {
    return decoder.decode(bytes);
  } catch {
    throw new Failure(1007, "a text is not UTF-8");
  }
}
