/**
 * The imgo client: one session that comes back by itself.
 *
 *     const client = new Imgo("/sub", { token, rooms: ["lobby"] });
 *     client.on("message", ({ body }) => show(body)).connect();
 */

/** The operations that matter here; the answer to `n` is `n + 1`. */
const Op = {
  HEARTBEAT: 2,
  SEND: 4,
  MESSAGE: 5,
  DISCONNECT: 6,
  AUTH: 7,
  AUTH_REPLY: 8,
  CHANGE_ROOM: 12,
  JOIN: 18,
  LEAVE: 20,
  OWN: 1000, // from here on: messages with an application's own number
};

const GRACE = 10_000; // ms beyond the heartbeat interval until silence means lost
const MAX_MS = 1e9; // setTimeout fires at once for more than 2^31 - 1

/** `code`: "closed", "timeout", "protocol", or the server's word for a refusal. */
export class ImgoError extends Error {
  constructor(code, message) {
    super(message);
    this.name = "ImgoError";
    this.code = code;
  }
}

/**
 * @typedef {object} Options
 * @property {string | (() => string | Promise<string>)} [token] a function is asked for every
 *   attempt; without a token the server tries the Django session
 * @property {string[]} [rooms]
 * @property {number} [heartbeat=240000] ms between heartbeats; each is up to 10% early
 * @property {{min: number, max: number}} [backoff] ms between attempts: 500 to 30000
 * @property {number} [timeout=15000] ms for an attempt, token included, and for an answer
 * @property {typeof WebSocket} [WebSocket] where there is no global one
 * @property {() => number} [random=Math.random]
 */

/**
 * Events:
 * - `state`: "connecting", "open", "waiting" for the next attempt, "closed" until `connect()`
 * - `open`: {body} of the auth reply
 * - `message`: {body, op, id, frame}
 * - `close`: {code, reason, willReconnect, delay}
 * - `error`: an Error
 */
export class Imgo {
  #url;
  #token;
  #times; // ms: heartbeat, timeout, min, max
  #WebSocket;
  #random;

  #state = "closed";
  #handlers = new Map(
    ["state", "open", "message", "close", "error"].map((event) => [event, new Set()]),
  );
  #queue = []; // events not told yet
  #telling = false;

  #run = 0; // what an earlier attempt still does is void
  #socket;
  #failures = 0; // in a row
  #openedAt = Infinity; // ms
  #farewell; // the body of op 6
  #seq = 0;
  #pending = new Map(); // seq → the call that waits for its answer
  #retryTimer;
  #beatTimer;
  #deadline;

  #rooms; // what the user wants to be in, session or not
  #asked; // the rooms of this session's auth frame
  #single = ""; // the one that changeRoom leaves

  /**
   * @param {string} url may be relative to the page
   * @param {Options} [options]
   */
  constructor(url, options = {}) {
    const { token, rooms = [], heartbeat = 240_000, timeout = 15_000, backoff } = options;
    const times = { heartbeat, timeout, min: 500, max: 30_000, ...backoff };
    for (const [name, ms] of Object.entries(times)) {
      if (!(ms > 0 && ms < MAX_MS)) throw new TypeError(`${name} can not be ${ms} ms`);
    }
    this.#times = times;
    if (typeof token !== "function") checkToken(token);
    this.#token = token;
    rooms.forEach(checkRoom);
    this.#rooms = new Set(rooms);
    this.#url = new URL(url, globalThis.location?.href);
    this.#url.protocol = this.#url.protocol.replace("http", "ws");
    this.#WebSocket = options.WebSocket ?? globalThis.WebSocket;
    if (!this.#WebSocket) throw new TypeError("no global WebSocket: pass one as an option");
    this.#random = options.random ?? Math.random;
  }

  get state() {
    return this.#state;
  }

  /** Those it is in, or asks for in its next session. */
  get rooms() {
    return [...this.#rooms];
  }

  /** What `fn` throws becomes an `error` event. */
  on(event, fn) {
    this.#handlersOf(event).add(fn);
    return this;
  }

  off(event, fn) {
    this.#handlersOf(event).delete(fn);
    return this;
  }

  /** Start, or skip the pause before the next attempt. */
  connect() {
    if (this.#state === "closed") {
      this.#failures = 0;
      this.#watchPage("addEventListener");
    }
    if (["closed", "waiting"].includes(this.#state)) this.#start();
    return this;
  }

  /** End the session and stay away until `connect()`. Rooms are kept for then. */
  close() {
    if (this.#state === "closed") return;
    this.#farewell = { reconnect: false };
    this.#end(1000, "closed by the client");
  }

  /**
   * Send `body` upstream.
   * @returns {Promise<any>} the answer's body; rejects without an open session
   */
  request(body) {
    return this.#call(Op.SEND, body);
  }

  /**
   * Join a room, in this session and in all that follow.
   * @returns {Promise<boolean>} true: the server has confirmed it; false: without a session,
   *   the next one asks for the room. Rejects when refused: then the room is forgotten.
   */
  async join(room) {
    checkRoom(room);
    this.#rooms.add(room);
    return this.#askFor(Op.JOIN, room, () => this.#rooms.delete(room));
  }

  /** Leave a room. Settles as `join` does. */
  async leave(room) {
    checkRoom(room);
    this.#rooms.delete(room);
    if (this.#single === room) this.#single = "";
    return this.#askFor(Op.LEAVE, room);
  }

  /**
   * Leave the room of the last `changeRoom`, or else the only one that the session began with,
   * and join another, if one is given. Settles as `join` does.
   */
  async changeRoom(room = "") {
    if (room !== "") checkRoom(room);
    const old = this.#single;
    const move = (from, to) => {
      this.#rooms.delete(from);
      if (to) this.#rooms.add(to);
      this.#single = to;
    };
    move(old, room);
    return this.#askFor(Op.CHANGE_ROOM, room, () => this.#single === room && move(room, old));
  }

  // Coming and going

  async #start() {
    clearTimeout(this.#retryTimer);
    const run = ++this.#run;
    this.#state = "connecting";
    this.#expect(this.#times.timeout, "no session in time");
    this.#emit(["state", "connecting"]);
    try {
      const token = typeof this.#token === "function" ? await this.#token() : this.#token;
      if (run === this.#run) this.#dial(checkToken(token));
    } catch (error) {
      if (run === this.#run) this.#end(1006, "could not connect", toError(error));
    }
  }

  #dial(token) {
    const socket = (this.#socket = new this.#WebSocket(this.#url.href));
    socket.onopen = () => {
      this.#asked = this.rooms;
      const body = this.#asked.length ? { token, rooms: this.#asked } : token || {};
      this.#send(Op.AUTH, body, this.#nextSeq());
    };
    socket.onmessage = ({ data }) => this.#receive(socket, data);
    socket.onclose = ({ code, reason }) => this.#end(code, reason);
    socket.onerror = () => {}; // `close` always follows, and says more
  }

  #opened(body) {
    this.#met();
    this.#state = "open";
    this.#openedAt = Date.now();
    this.#beat();
    this.#settleRooms();
    this.#emit(["state", "open"], ["open", { body }]);
  }

  /** Make good what the user changed while the auth frame was under way. */
  #settleRooms() {
    const asked = this.#asked;
    const tell = (call) => call.catch((error) => this.#emit(["error", error]));
    for (const room of new Set([...asked, ...this.#rooms])) {
      const isWanted = this.#rooms.has(room);
      if (isWanted !== asked.includes(room)) tell(isWanted ? this.join(room) : this.leave(room));
    }
    // The server takes a room that came alone for the one to change, and only then.
    const alone = asked.length === 1 ? asked[0] : "";
    if (!this.#single) this.#single = alone;
    else if (this.#single !== alone) tell(this.changeRoom(this.#single));
  }

  /** The one end of every attempt and session: let go of everything, then tell. */
  #end(code, reason, error) {
    this.#run++;
    this.#letGo();
    const { code: said, reason: why, reconnect } = this.#farewell ?? {};
    this.#farewell = undefined;
    if (code < 4000 && said) [code, reason] = [said, why];
    // A session that outlived the longest pause was a good one.
    if (Date.now() - this.#openedAt >= this.#times.max) this.#failures = 0;
    this.#openedAt = Infinity;

    const willReconnect = reconnect !== false && !(code >= 4500 && code < 5000);
    const delay = willReconnect ? this.#nextDelay() : 0;
    this.#state = willReconnect ? "waiting" : "closed";
    if (willReconnect) this.#retryTimer = setTimeout(() => this.#start(), delay);
    else this.#watchPage("removeEventListener");

    const calls = [...this.#pending.values()];
    this.#pending.clear();
    for (const { timer, reject } of calls) {
      clearTimeout(timer);
      reject(new ImgoError("closed", `the session ended: ${code} ${reason}`));
    }
    if (error) this.#queue.push(["error", error]);
    this.#emit(["state", this.#state], ["close", { code, reason, willReconnect, delay }]);
  }

  #letGo() {
    clearTimeout(this.#retryTimer);
    clearTimeout(this.#beatTimer);
    this.#met();
    const socket = this.#socket;
    this.#socket = undefined;
    if (!socket) return;
    // A dead network may report the close minutes from now.
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close();
  }

  /** Full jitter above `min`: many clients must not come back in step. */
  #nextDelay() {
    const { min, max } = this.#times;
    const ceiling = Math.min(max, min * 2 ** ++this.#failures);
    return Math.round(min + this.#random() * (ceiling - min));
  }

  #watchPage(method) {
    globalThis[method]?.("online", this.#wake);
    globalThis.document?.[method]("visibilitychange", this.#wake);
  }

  /** The page is back: skip the pause, or find out if the session survived. */
  #wake = ({ type }) => {
    if (type !== "online" && document.visibilityState !== "visible") return;
    if (this.#state === "waiting") this.#start();
    else if (this.#state === "open") {
      this.#met();
      this.#probe(this.#times.timeout);
    }
  };

  // Frames

  /** A positive int32: 0 is left to pushes. */
  #nextSeq() {
    return (this.#seq = (this.#seq % 0x7fffffff) + 1);
  }

  #send(op, body = {}, seq = 0) {
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
    } else if (op === Op.MESSAGE || op >= Op.OWN) {
      this.#emit(["message", { body, op, id, frame }]);
    }
  }

  #call(op, body) {
    return new Promise((resolve, reject) => {
      if (this.#state !== "open") throw new ImgoError("closed", "no session is open");
      const seq = this.#nextSeq();
      this.#send(op, body, seq);
      const timer = setTimeout(() => {
        this.#pending.delete(seq);
        reject(new ImgoError("timeout", "no answer in time"));
      }, this.#times.timeout);
      const settle = (answer) => {
        this.#pending.delete(seq);
        clearTimeout(timer);
        const refusal = op !== Op.SEND && answer?.error;
        if (refusal) reject(new ImgoError(refusal.code, refusal.message));
        else resolve(answer);
      };
      this.#pending.set(seq, { answer: op + 1, settle, reject, timer });
    });
  }

  async #askFor(op, room, undo = () => {}) {
    if (this.#state !== "open") return false;
    try {
      await this.#call(op, room);
      return true;
    } catch (error) {
      if (error.code === "closed") return false;
      if (error.code !== "timeout") undo();
      throw error;
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

  /** End the attempt or session unless it is `#met` within `ms`. The first call counts. */
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

  /** Tell the handlers, one event after the other even if one causes another. */
  #emit(...events) {
    this.#queue.push(...events);
    if (this.#telling) return;
    this.#telling = true;
    while (this.#queue.length) this.#tell(...this.#queue.shift());
    this.#telling = false;
  }

  #tell(event, data) {
    const handlers = [...this.#handlers.get(event)];
    const failed = (error) => {
      if (event === "error") console.error(error);
      else this.#emit(["error", toError(error)]);
    };
    if (event === "error" && !handlers.length) console.error(data);
    for (const handler of handlers) {
      try {
        handler(data)?.then?.(undefined, failed);
      } catch (error) {
        failed(error);
      }
    }
  }
}

function parse(data) {
  try {
    const frames = typeof data === "string" && JSON.parse(data);
    if (Array.isArray(frames) && frames.every((one) => Number.isInteger(one?.op))) return frames;
  } catch {
    // said below
  }
  throw new ImgoError("protocol", "the server sent no list of frames");
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
