/** The imgo client: one session that comes back by itself. imgo.d.ts tells all it can do. */

/** The operations; the answer to `n` is `n + 1`. */
const Op = {
  HEARTBEAT: 2,
  SEND: 4,
  MESSAGE: 5,
  DISCONNECT: 6,
  AUTH: 7,
  AUTH_REPLY: 8,
  JOIN: 18,
  LEAVE: 20,
  ACK: 22,
  OWN: 1000, // from here on: messages with an application's own number
};

const GRACE = 10_000; // ms of silence beyond a heartbeat
const HASTE = 3000; // ms for an answer without a network
const MAX_MS = 1e9; // setTimeout has a limit
const ACK_PAUSE = 100; // ms
const ID_SIZE = 22; // bytes
const SEEN = 2000; // ids kept; a server sends up to 1,000 again

export class ImgoError extends Error {
  constructor(code, message) {
    super(message);
    this.name = "ImgoError";
    this.code = code;
  }
}

export class Imgo {
  #url;
  #token;
  #ack;
  #maxBody; // bytes
  #times; // ms: heartbeat, timeout, min, max
  #WebSocket;
  #random;

  #state = "closed";
  #handlers = new Map(
    ["state", "open", "message", "close", "error"].map((event) => [event, new Set()]),
  );
  #queue = [];
  #telling = false;

  #run = 0;
  #socket;
  #failures = 0;
  #openedAt = Infinity; // ms
  #endedAt;
  #farewell; // the body of op 6
  #seq = 0;
  #pending = new Map(); // seq → call
  #retryTimer;
  #beatTimer;
  #deadline;

  #rooms; // wanted, session or not
  #asked; // in the auth frame

  #storage;
  #name; // in the storage
  #seen = new Set(); // ids of handled messages, the oldest first
  #handling = new Set(); // ids of those at hand
  #acks = []; // ids to be sent
  #ackTimer;

  constructor(url, options = {}) {
    const { token, rooms = [], heartbeat = 240_000, timeout = 15_000, backoff } = options;
    const { ack = true, maxBody = 1024, name = "", random = Math.random, storage } = options;
    const times = { heartbeat, timeout, min: 500, max: 30_000, ...backoff };
    for (const [time, ms] of Object.entries(times)) {
      if (!(ms > 0 && ms < MAX_MS)) throw new TypeError(`${time} can not be ${ms} ms`);
    }
    this.#times = times;
    if (typeof token !== "function") checkToken(token);
    this.#token = token;
    rooms.forEach(checkRoom);
    this.#rooms = new Set(rooms);
    this.#url = new URL(url, globalThis.location?.href);
    this.#url.protocol = this.#url.protocol.replace("http", "ws");
    this.#WebSocket = options.WebSocket ?? globalThis.WebSocket;
    this.#random = random;
    this.#ack = ack;
    this.#maxBody = maxBody;
    this.#name = `imgo ${this.#url} ${name}`;
    if (ack) this.#remember(storage);
  }

  get state() {
    return this.#state;
  }

  get rooms() {
    return [...this.#rooms];
  }

  on(event, fn) {
    this.#handlersOf(event).add(fn);
    return this;
  }

  off(event, fn) {
    this.#handlersOf(event).delete(fn);
    return this;
  }

  connect() {
    // `min` stays: handlers may call this.
    const pause = this.#endedAt + this.#times.min - performance.now();
    if (this.#state === "closed") {
      this.#failures = 0;
      this.#watchPage("addEventListener");
      if (pause > 0) {
        this.#pause();
        this.#emit(["state", this.#state]);
      } else this.#start();
    } else if (!["connecting", "open"].includes(this.#state)) this.#startIn(pause);
    return this;
  }

  close() {
    if (this.#state === "closed") return;
    this.#sendAcks();
    this.#farewell = { reconnect: false };
    this.#end(1000, "closed by the client");
    this.#endedAt = undefined;
  }

  request(body) {
    return this.#call(Op.SEND, body);
  }

  async join(room) {
    checkRoom(room);
    this.#rooms.add(room);
    return this.#askFor(Op.JOIN, room);
  }

  async leave(room) {
    checkRoom(room);
    this.#rooms.delete(room);
    return this.#askFor(Op.LEAVE, room);
  }

  // Coming and going

  async #start() {
    const run = ++this.#run;
    this.#state = "connecting";
    this.#expect(this.#times.timeout, "no session in time");
    this.#emit(["state", "connecting"]);
    try {
      this.#WebSocket ??= (await import("./websocket-node.js")).NodeWebSocket; // Node 20 has none
      const token = typeof this.#token === "function" ? await this.#token() : this.#token;
      if (run === this.#run) this.#dial(checkToken(token));
    } catch (error) {
      if (run === this.#run) this.#end(1006, "could not connect", toError(error));
    }
  }

  #dial(token) {
    const socket = (this.#socket = new this.#WebSocket(this.#url.href));
    socket.onopen = () => {
      const ack = this.#ack;
      const rooms = (this.#asked = this.rooms);
      // imgo's own server understands a bare token alone.
      const body = ack || rooms.length || !token ? { token, rooms, ack } : token;
      // Those that do not fit are joined after it.
      while (rooms.length && sizeOf(body) > this.#maxBody) rooms.length >>= 1;
      this.#send(Op.AUTH, body, this.#nextSeq());
    };
    socket.onmessage = ({ data }) => this.#receive(socket, data);
    socket.onclose = ({ code, reason }) => this.#end(code, reason);
    socket.onerror = () => {}; // `close` always follows, and says more
  }

  #opened(body) {
    this.#met();
    this.#state = "open";
    this.#openedAt = performance.now();
    this.#beat();
    this.#sendAcks();
    this.#settleRooms();
    this.#emit(["state", "open"], ["open", { body }]);
  }

  /** Make good what the auth frame did not ask for. */
  #settleRooms() {
    const asked = this.#asked;
    for (const room of new Set([...asked, ...this.#rooms])) {
      const isWanted = this.#rooms.has(room);
      if (isWanted === asked.includes(room)) continue;
      this[isWanted ? "join" : "leave"](room).catch((error) => this.#emit(["error", error]));
    }
  }

  /** The one end of every attempt and session. */
  #end(code, reason, error) {
    this.#run++;
    this.#letGo();
    const { code: said, reason: why = "", reconnect } = this.#farewell ?? {};
    this.#farewell = undefined;
    if (code < 4000 && Number.isInteger(said)) [code, reason] = [said, String(why)];
    this.#endedAt = performance.now(); // after the longest pause it was a good one
    if (this.#endedAt - this.#openedAt >= this.#times.max) this.#failures = 0;
    this.#openedAt = Infinity;

    const willReconnect = reconnect !== false && !(code >= 4500 && code < 5000);
    const delay = willReconnect ? this.#pause() : 0;
    if (!willReconnect) {
      this.#state = "closed";
      this.#watchPage("removeEventListener");
    }

    for (const { timer, reject } of this.#pending.values()) {
      clearTimeout(timer);
      reject(new ImgoError("closed", `the session ended: ${code} ${reason}`));
    }
    this.#pending.clear();
    if (error) this.#queue.push(["error", error]);
    this.#emit(["state", this.#state], ["close", { code, reason, willReconnect, delay }]);
  }

  #letGo() {
    clearTimeout(this.#retryTimer);
    clearTimeout(this.#beatTimer);
    clearTimeout(this.#ackTimer);
    this.#met();
    const socket = this.#socket;
    this.#socket = undefined;
    if (!socket) return;
    // A dead network reports the close minutes later.
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close();
  }

  /** Wait for the next attempt; returns how long, in ms. */
  #pause() {
    const isOffline = globalThis.navigator?.onLine === false;
    const delay = isOffline ? this.#times.max : this.#nextDelay();
    this.#state = isOffline ? "offline" : "waiting";
    this.#startIn(delay);
    return delay;
  }

  #startIn(ms) {
    clearTimeout(this.#retryTimer);
    this.#retryTimer = setTimeout(() => this.#start(), ms);
  }

  /** Full jitter above `min`: many clients must not come back in step. */
  #nextDelay() {
    const { min, max } = this.#times;
    const ceiling = Math.min(max, min * 2 ** ++this.#failures);
    return Math.round(min + this.#random() * (ceiling - min));
  }

  #watchPage(method) {
    for (const type of ["online", "offline", "visibilitychange", "pageshow", "resume"]) {
      globalThis[method]?.(type, this.#wake, { capture: true }); // the document's too
    }
  }

  /** The page or the network is back: is the session? */
  #wake = ({ type }) => {
    if (type === "visibilitychange" && document.visibilityState !== "visible") return;
    if (this.#state === "open") {
      this.#met();
      this.#probe(type === "offline" ? HASTE : this.#times.timeout);
    } else if (navigator.onLine !== false) {
      this.connect();
    } else if (this.#state === "waiting") {
      this.#pause();
      this.#emit(["state", this.#state]);
    }
  };

  // Frames

  /** A positive int32: 0 is left to pushes. */
  #nextSeq() {
    return (this.#seq = (this.#seq % 0x7fffffff) + 1);
  }

  #send(op, body = {}, seq = 0) {
    if (this.#socket.readyState > 1) return; // browsers complain
    this.#socket.send(JSON.stringify({ ver: 1, op, seq, body }));
  }

  #receive(socket, data) {
    let frames;
    try {
      frames = parse(data);
    } catch (error) {
      this.#end(1002, error.message, error);
      return;
    }
    if (this.#state === "open") this.#met();
    for (const frame of frames) {
      if (socket !== this.#socket) return; // a handler has closed the session
      this.#handle(frame);
    }
  }

  #handle(frame) {
    const { op, seq, body, id } = frame;
    const call = this.#pending.get(seq);
    if (call?.answer === op) {
      call.settle(body);
    } else if (op === Op.AUTH_REPLY && this.#state === "connecting") {
      this.#opened(body);
    } else if (op === Op.DISCONNECT) {
      this.#farewell = body;
      this.#met();
      this.#expect(GRACE, "no close after the goodbye");
    } else if (!seq && (op === Op.MESSAGE || op >= Op.OWN)) {
      this.#take({ body, op, id, frame });
    }
  }

  #call(op, body) {
    return new Promise((resolve, reject) => {
      if (this.#state !== "open") throw new ImgoError("closed", "no session is open");
      const size = sizeOf(body);
      if (size > this.#maxBody) throw new ImgoError("too_large", `a body of ${size} bytes`);
      const seq = this.#nextSeq();
      this.#send(op, body, seq);
      const timer = setTimeout(() => {
        this.#pending.delete(seq);
        reject(new ImgoError("timeout", "no answer in time"));
      }, this.#times.timeout);
      const settle = (answer) => {
        this.#pending.delete(seq);
        clearTimeout(timer);
        const refusal = answer?.error;
        if (typeof refusal?.code === "string") reject(new ImgoError(refusal.code, refusal.message));
        else resolve(answer);
      };
      this.#pending.set(seq, { answer: op + 1, settle, reject, timer });
    });
  }

  async #askFor(op, room) {
    if (this.#state !== "open") return false;
    try {
      await this.#call(op, room);
      return true;
    } catch (error) {
      if (error.code === "closed") return false;
      if (error.code !== "timeout") this.#rooms.delete(room); // refused
      throw error;
    }
  }

  // Acknowledgement

  #remember(storage) {
    try {
      this.#storage = storage === undefined ? globalThis.sessionStorage : storage;
      const ids = this.#storage?.getItem(this.#name)?.split(" ") ?? [];
      this.#seen = new Set(ids.slice(-SEEN));
    } catch {} // forbidden: kept in memory alone
  }

  #take(message) {
    const { id } = message;
    if (this.#seen.has(id)) {
      this.#acknowledge(id); // the last one was lost
    } else if (!this.#handling.has(id)) {
      if (this.#ack && typeof id === "string") this.#handling.add(id);
      this.#emit(["message", message]);
    }
  }

  #handled(id) {
    this.#seen.add(id);
    if (this.#seen.size > SEEN) this.#seen.delete(this.#seen.values().next().value);
    try {
      this.#storage?.setItem(this.#name, [...this.#seen].join(" "));
    } catch {} // full: likewise
    this.#acknowledge(id);
  }

  #acknowledge(id) {
    if (this.#acks.push(id) === 1 && this.#state === "open") {
      this.#ackTimer = setTimeout(() => this.#sendAcks(), ACK_PAUSE);
    }
  }

  #sendAcks() {
    while (this.#state === "open" && this.#acks.length) {
      this.#send(Op.ACK, this.#acks.splice(0, Math.max(1, this.#maxBody / ID_SIZE)));
    }
  }

  // Heartbeats

  #beat() {
    const pause = this.#times.heartbeat * (0.9 + 0.1 * this.#random());
    this.#beatTimer = setTimeout(() => {
      this.#beat();
      this.#probe(this.#times.heartbeat + GRACE);
    }, pause);
  }

  #probe(patience) {
    this.#send(Op.HEARTBEAT);
    this.#expect(patience, "no answer to a heartbeat");
  }

  /** End it all unless `#met` within `ms`. The first call counts. */
  #expect(ms, reason) {
    this.#deadline ??= setTimeout(() => this.#end(1006, reason), ms);
  }

  #met() {
    clearTimeout(this.#deadline);
    this.#deadline = undefined;
  }

  // Events

  #handlersOf(event) {
    const handlers = this.#handlers.get(event);
    if (!handlers) throw new TypeError(`no such event: ${event}`);
    return handlers;
  }

  /** One event after the other, even if one causes another. */
  #emit(...events) {
    this.#queue.push(...events);
    if (this.#telling) return;
    this.#telling = true;
    while (this.#queue.length) this.#tell(...this.#queue.shift());
    this.#telling = false;
  }

  #tell(event, data) {
    const handlers = [...this.#handlers.get(event)];
    if (event === "error" && !handlers.length) console.error(data);
    let isHandled = handlers.length > 0;
    const failed = (error) => {
      isHandled = false;
      if (event === "error") console.error(error);
      else this.#emit(["error", toError(error)]);
    };
    const promises = [];
    for (const handler of handlers) {
      try {
        const result = handler(data);
        if (result?.then) promises.push(Promise.resolve(result).catch(failed));
      } catch (error) {
        failed(error);
      }
    }
    if (event !== "message") return;
    const settle = () => this.#handling.delete(data.id) && isHandled && this.#handled(data.id);
    if (promises.length) Promise.all(promises).then(settle);
    else settle();
  }
}

function parse(data) {
  try {
    const frames = typeof data === "string" && JSON.parse(data);
    if (Array.isArray(frames) && frames.every((one) => Number.isInteger(one?.op))) return frames;
  } catch {} // said below
  throw new ImgoError("protocol", "the server sent no list of frames");
}

function sizeOf(body) {
  return new TextEncoder().encode(JSON.stringify(body)).length;
}

function checkToken(token) {
  if (token == null || typeof token === "string") return token;
  throw new TypeError("a token must be a string");
}

function checkRoom(room) {
  if (!room || typeof room !== "string") throw new TypeError("a room must be a non-empty string");
}

function toError(error) {
  return error instanceof Error ? error : new Error("not an Error", { cause: error });
}
