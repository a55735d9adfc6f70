/** A session that comes back. See imgo.d.ts. */

/** The answer to `n` is `n + 1`. */
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
  HISTORY: 24,
  PRESENCE: 28,
  GAP: 29,
  PUBLISH: 32,
  OWN: 1000,
};

const NEWS = { 30: "retracted", 31: "read" };
const GRACE = 10_000; // ms of silence beyond a heartbeat
const HASTE = 3000; // ms for an answer without a network
const MAX = 1e9; // setTimeout has a limit
const ACK_PAUSE = 100; // ms
const ID_SIZE = 22; // bytes
const SEEN = 2000; // ids; a server sends 1,000 again
const AUTH_BODY = 8192;
const TRANSPORTS = ["websocket", "sse"];
const REFUSED_FOR_NOW = ["timeout", "unavailable"];

export class ImgoError extends Error {
  constructor(code, message) {
    super(message);
    this.name = "ImgoError";
    this.code = code;
  }
}

export class Imgo {
  #options; // ms: heartbeat, timeout, min, max; bytes: maxBody
  #WebSocket;
  #ways; // of imgo-ways.js
  #isPlain; // a WebSocket alone will do
  #misses = 0; // attempts in a row that nobody answered

  #state = "closed";
  #handlers = handlersOf(
    "state", "open", "message", "close", "error", "retracted", "acknowledged", "read",
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
  #streams = new Map(); // name → Stream, of `room()`
  #asked; // in the auth frame: [room, stream]

  #name; // in the storage
  #seen = new Set(); // ids, the oldest first
  #handling = new Set();
  #acks = [];
  #ackTimer;

  constructor(url, options = {}) {
    const {
      token, rooms = [], heartbeat = 240_000, timeout = 15_000, backoff, ack = true, storage,
      maxBody = 1024, name = "", device, random = Math.random, WebSocket, transports, share,
      ...unknown
    } = options;
    checkNone(unknown);
    const limits = { heartbeat, timeout, min: 500, max: 30_000, ...backoff, maxBody };
    for (const what in limits) {
      check(limits[what] > 0 && limits[what] < MAX, what, "between 0 and 1e9", limits[what]);
    }
    if (!token?.call) checkToken(token);
    check(Array.isArray(rooms), "rooms", "a list", rooms);
    for (const room of rooms) checkText(room);
    this.#rooms = new Set(rooms);
    url = new URL(url, globalThis.location?.href);
    url.protocol = url.protocol.replace("http", "ws");
    this.#WebSocket = WebSocket ?? globalThis.WebSocket;
    if (transports != null) checkTransports(transports);
    if (share != null) checkText(share, "share");
    if (device != null) checkText(device, "device");
    check(typeof ack === "boolean", "ack", "true or false", ack);
    check(typeof name === "string", "name", "a string", name);
    const isStorage = storage == null || (storage.getItem?.call && storage.setItem?.call);
    check(isStorage, "storage", "an object with getItem and setItem", storage);
    this.#options = { ...options, ...limits, ack, random, url, client: this };
    this.#isPlain = this.#WebSocket && !transports && !share;
    this.#name = `imgo ${url} ${name}`;
    this.#remember();
  }

  get state() {
    return this.#state;
  }

  get transport() {
    return this.#ways?.transport ?? "websocket";
  }

  get rooms() {
    return [...this.#rooms];
  }

  on(event, fn) {
    handlersFor(this.#handlers, event).add(fn);
    return this;
  }

  off(event, fn) {
    handlersFor(this.#handlers, event).delete(fn);
    return this;
  }

  connect(transport) {
    if (transport) {
      checkTransports([transport]);
      this.#options.wanted = transport;
      this.#isPlain = false;
      this.#misses = 0;
      if (this.#isUp && this.transport !== transport) this.#end(1000, "another transport");
    }
    // `min` stays: handlers may call this.
    const pause = this.#endedAt + this.#options.min - performance.now();
    if (this.#state === "closed") {
      this.#failures = this.#misses = 0;
      this.#watchPage("addEventListener");
      if (pause > 0) {
        this.#pause();
        this.#emit(["state", this.#state]);
      } else this.#start();
    } else if (!this.#isUp) this.#startIn(pause);
    return this;
  }

  get #isUp() {
    return ["connecting", "open"].includes(this.#state);
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
    this.#checkFree(room);
    this.#rooms.add(room);
    return this.#askFor(Op.JOIN, room);
  }

  async leave(room) {
    this.#checkFree(room);
    this.#rooms.delete(room);
    return this.#askFor(Op.LEAVE, room);
  }

  room(name, { persist, ...options } = {}) {
    this.#checkFree(name);
    if (this.#rooms.has(name)) throw new TypeError(`join() was called for ${name}`);
    const client = {
      storage: persist && this.#options.storage,
      key: `${this.#name} ${JSON.stringify(name)}`,
      leave: this.#leaveStream.bind(this),
      ask: this.#call.bind(this),
      emit: this.#emit.bind(this),
    };
    const stream = new Stream(name, options, client);
    this.#streams.set(name, stream);
    if (this.#state === "open") this.#enter(stream);
    return new Room(stream);
  }

  async #start() {
    const run = ++this.#run;
    this.#state = "connecting";
    this.#expect(this.#options.timeout, "no session in time");
    try {
      try {
        if (!this.#isPlain || (this.#misses > 1 && !this.#options.WebSocket)) {
          this.#ways ??= new (await import("./imgo-ways.js")).Ways(this.#options);
        }
      } catch (error) {
        if (!this.#isPlain) throw error; // else the server is away
      } finally {
        if (run === this.#run) {
          this.#ways?.choose(this.#misses);
          this.#emit(["state", "connecting"]);
        }
      }
      const token = this.#options.token?.call ? await this.#options.token() : this.#options.token;
      checkToken(token);
      if (run !== this.#run) return;
      this.#misses++;
      const socket = this.#ways ? await this.#ways.open() : new this.#WebSocket(this.#options.url.href);
      if (run === this.#run) this.#dial(token, socket);
      else socket.close();
    } catch (error) {
      if (run === this.#run) this.#end(1006, "could not connect", toError(error));
    }
  }

  #dial(token, socket) {
    this.#socket = socket;
    socket.onopen = () => {
      const { ack, maxBody, device } = this.#options;
      const streams = [...this.#streams].filter(([, { state }]) => state === "joining");
      const pairs = (this.#asked = [...this.rooms.map((room) => [room]), ...streams]);
      // imgo's own server understands a bare token alone.
      const isBare = !ack && !device && !pairs.length && token;
      const renew = this.#options.token?.call && true;
      const body = { token, rooms: [], ack, retractions: true, renew, device };
      const most = Math.max(streams.length && AUTH_BODY, maxBody);
      const fits = () => {
        const asked = pairs.map(([room, stream]) => [room, stream?.request ?? {}]);
        body.rooms = streams.length ? Object.fromEntries(asked) : pairs.map(([room]) => room);
        return sizeOf(body) <= most;
      };
      // Those that do not fit are joined after it.
      while (!fits() && pairs.length) pairs.length >>= 1;
      this.#send(Op.AUTH, isBare ? token : body, ++this.#seq);
    };
    socket.onmessage = ({ data }) => this.#receive(socket, data);
    socket.onclose = ({ code, reason, fault }) => {
      this.#end(code, reason, fault && new ImgoError(fault, reason));
    };
    socket.onerror = () => {}; // `close` follows
    if (socket.readyState === 1) socket.onopen();
  }

  #opened(body) {
    this.#met();
    this.#misses = 0;
    this.#state = "open";
    this.#openedAt = performance.now();
    this.#beat();
    this.#renew(body);
    this.#sendAcks();
    // null: is joined later
    this.#asked = this.#asked.filter(([room]) => body?.rooms?.[room] !== null);
    const news = this.#asked.flatMap(([room, stream]) => stream?.accept(body?.rooms?.[room]) ?? []);
    this.#settleRooms();
    this.#emit(["state", "open"], ["open", { body }], ...news);
  }

  #settleRooms() {
    const asked = new Map(this.#asked);
    for (const room of new Set([...asked.keys(), ...this.#rooms])) {
      const isWanted = this.#rooms.has(room) || asked.get(room)?.state === "joined";
      if (isWanted === asked.has(room)) continue;
      this.#askFor(isWanted ? Op.JOIN : Op.LEAVE, room)
        .catch((error) => this.#emit(["error", error]));
    }
    for (const stream of this.#streams.values()) {
      if (stream.state === "joining") this.#enter(stream);
    }
  }

  #end(code, reason, error) {
    this.#run++;
    this.#letGo();
    const { code: said, reason: why = "", reconnect } = this.#farewell ?? {};
    this.#farewell = undefined;
    if (code < 4000 && Number.isInteger(said)) [code, reason] = [said, String(why)];
    this.#endedAt = performance.now();
    if (this.#endedAt - this.#openedAt >= this.#options.max) this.#failures = 0;
    this.#openedAt = Infinity;
    if (/^(overloaded|buffered)/.test(reason)) this.#failures++; // twice
    if (code >= 4000) this.#misses = 0;

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
    const lost = [...this.#streams.values()].flatMap((stream) => stream.lose());
    this.#emit(["state", this.#state], ["close", { code, reason, willReconnect, delay }], ...lost);
  }

  #letGo() {
    clearTimeout(this.#retryTimer);
    clearTimeout(this.#beatTimer);
    clearTimeout(this.#ackTimer);
    this.#met();
    const socket = this.#socket;
    this.#socket = undefined;
    if (!socket) return;
    // A dead network closes it late.
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close();
  }

  #pause() {
    const { min, max, random } = this.#options;
    const isOffline = globalThis.navigator?.onLine === false;
    this.#state = isOffline ? "offline" : "waiting";
    if (!isOffline) this.#failures++;
    // Full jitter above `min`.
    const most = Math.min(max, min * 2 ** this.#failures);
    const delay = isOffline ? max : Math.round(min + random() * (most - min));
    this.#startIn(delay);
    return delay;
  }

  #startIn(ms) {
    clearTimeout(this.#retryTimer);
    this.#retryTimer = setTimeout(() => this.#start(), ms);
  }

  #watchPage(method) {
    for (const type of ["online", "offline", "visibilitychange", "pageshow", "resume"]) {
      globalThis[method]?.(type, this.#wake, { capture: true }); // the document's too
    }
  }

  #wake = ({ type }) => {
    if (type === "visibilitychange" && document.visibilityState !== "visible") return;
    if (this.#state === "open") {
      this.#met();
      this.#probe(type === "offline" ? HASTE : this.#options.timeout);
    } else if (navigator.onLine !== false) {
      this.connect();
    } else if (this.#state === "waiting") {
      this.#pause();
      this.#emit(["state", this.#state]);
    }
  };

  #send(op, body = {}, seq = 0) {
    if (this.#socket.readyState > 1) return;
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
    const { op, seq, body, id, room, from } = frame;
    const call = this.#pending.get(seq);
    if (call?.answer === op) {
      call.settle(body);
    } else if (op === Op.AUTH_REPLY) {
      if (this.#state === "open") this.#renew(body);
      else this.#opened(body);
    } else if (op === Op.DISCONNECT) {
      this.#farewell = body;
      this.#met();
      this.#expect(GRACE, "no close in time");
    } else if (op === Op.GAP) {
      this.#emit(...(this.#streams.get(body?.room)?.gap(body) ?? []));
    } else if (NEWS[op]) {
      this.#emit([NEWS[op], body]);
    } else if (op === Op.PRESENCE) {
      this.#streams.get(body?.room)?.keeper?.take(body);
    } else if (!seq && (op === Op.MESSAGE || op >= Op.OWN)) {
      const message = { body, op, id, frame };
      if (from) message.from = from;
      if (room !== undefined) message.room = room;
      const stream = this.#streams.get(room);
      if (stream) this.#emit(...stream.take(message));
      else this.#take(message);
    }
  }

  /** `taken` gets the answer before anything that comes behind it. */
  #call(op, body, taken) {
    return new Promise((resolve, reject) => {
      if (this.#state !== "open") throw new ImgoError("closed", "no session is open");
      const size = op !== Op.AUTH && sizeOf(body);
      if (size > this.#options.maxBody) throw new ImgoError("too_large", `a body of ${size} bytes`);
      const seq = ++this.#seq;
      this.#send(op, body, seq);
      const timer = setTimeout(() => {
        this.#pending.delete(seq);
        reject(new ImgoError("timeout", "no answer in time"));
      }, this.#options.timeout);
      const settle = (answer) => {
        this.#pending.delete(seq);
        clearTimeout(timer);
        const { code, message } = Object(answer?.error);
        if (typeof code === "string") reject(new ImgoError(code, message));
        else {
          taken?.(answer);
          resolve(answer);
        }
      };
      this.#pending.set(seq, { answer: op + 1, settle, reject, timer });
    });
  }

  async #askFor(op, room) {
    try {
      await this.#call(op, room);
      return true;
    } catch (error) {
      if (error.code === "closed") return false;
      if (error.code !== "timeout") this.#rooms.delete(room);
      throw error;
    }
  }

  /** A room has one owner: its `Room`, or `join` and `leave`. */
  #checkFree(room) {
    checkText(room);
    if (this.#streams.has(room) && this.#streams.get(room).state !== "left") {
      throw new TypeError(`room() was called for ${room}`);
    }
  }

  #enter(stream) {
    const run = this.#run;
    const { name } = stream;
    const isNeeded = () => run === this.#run && stream.state === "joining";
    const accept = (reply) => this.#emit(...stream.accept(reply));
    this.#call(Op.JOIN, { [name]: stream.request }, accept).catch((error) => {
      if (!isNeeded()) return;
      if (!REFUSED_FOR_NOW.includes(error.code)) {
        this.#streams.delete(name);
        this.#emit(...stream.end("refused", error), ["error", error]);
        return;
      }
      this.#emit(["error", error]);
      const { min, max, random } = this.#options;
      stream.timer = setTimeout(() => {
        if (!isNeeded()) return;
        this.#askFor(Op.LEAVE, name).catch(() => {}); // it may be in
        this.#enter(stream);
      }, min + random() * (max - min));
    });
  }

  async #leaveStream(stream) {
    const { name } = stream;
    this.#emit(...stream.end("left"));
    try {
      return await this.#askFor(Op.LEAVE, name);
    } finally {
      // Until now, its messages were nobody else's.
      if (this.#streams.get(name) === stream) this.#streams.delete(name);
    }
  }

  #renew(reply) {
    const run = this.#run;
    const ms = reply?.expires_in * 800;
    if (!(ms < MAX && this.#options.token?.call)) return;
    clearTimeout(this.#retryTimer);
    this.#retryTimer = setTimeout(async () => {
      try {
        this.#renew(await this.#call(Op.AUTH, { token: checkToken(await this.#options.token()) }));
      } catch (error) {
        if (run === this.#run) this.#renew({ expires_in: reply.expires_in / 5 }); // what is left
        this.#emit(["error", toError(error)]);
      }
    }, Math.max(ms, 1000));
  }

  #remember() {
    try {
      if (localStorage.getItem(`imgo ${this.#options.url}`) > Date.now()) this.#isPlain = false;
    } catch {} // it is forbidden
    try {
      if (this.#options.storage === undefined) this.#options.storage = sessionStorage;
      if (!this.#options.ack) return;
      this.#seen = new Set(this.#options.storage?.getItem(this.#name)?.split(" ").slice(-SEEN));
    } catch {}
  }

  #take(message) {
    const { id } = message;
    if (this.#seen.has(id)) {
      this.#acknowledge(id); // the last one was lost
    } else if (!this.#handling.has(id)) {
      if (this.#options.ack && typeof id === "string") this.#handling.add(id);
      const done = (isHandled) => this.#handling.delete(id) && isHandled && this.#handled(id);
      this.#emit(["message", message, this.#handlers, done]);
    }
  }

  #handled(id) {
    this.#seen.add(id);
    if (this.#seen.size > SEEN) this.#seen.delete(this.#seen.values().next().value);
    try {
      this.#options.storage?.setItem(this.#name, [...this.#seen].join(" "));
    } catch {}
    this.#acknowledge(id);
  }

  #acknowledge(id) {
    if (this.#acks.push(id) === 1 && this.#state === "open") {
      this.#ackTimer = setTimeout(() => this.#sendAcks(), ACK_PAUSE);
    }
  }

  #sendAcks() {
    while (this.#state === "open" && this.#acks.length) {
      const ids = this.#acks.splice(0, Math.max(1, this.#options.maxBody / ID_SIZE));
      this.#send(Op.ACK, ids);
      this.#emit(["acknowledged", { ids }]);
    }
  }

  #beat() {
    const { heartbeat, random } = this.#options;
    this.#beatTimer = setTimeout(() => {
      this.#beat();
      this.#probe(heartbeat + GRACE);
    }, heartbeat * (0.9 + 0.1 * random()));
  }

  #probe(patience) {
    this.#send(Op.HEARTBEAT);
    this.#expect(patience, "no answer to a heartbeat");
  }

  /** End it all unless `#met` within `ms`. */
  #expect(ms, reason) {
    this.#deadline ??= setTimeout(() => this.#end(1006, reason), ms);
  }

  #met() {
    clearTimeout(this.#deadline);
    this.#deadline = undefined;
  }

  /** One event after the other, even if one causes another. */
  #emit(...events) {
    this.#queue.push(...events);
    if (this.#telling) return;
    this.#telling = true;
    while (this.#queue.length) this.#tell(...this.#queue.shift());
    this.#telling = false;
  }

  /** `done` gets whether there are handlers, and none has failed. */
  #tell(event, data, source = this.#handlers, done) {
    const handlers = [...source.get(event)];
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
    if (promises.length) Promise.all(promises).then(() => done?.(isHandled));
    else done?.(isHandled);
  }
}

class Room {
  #stream;

  constructor(stream) {
    this.#stream = stream;
  }

  get name() {
    return this.#stream.name;
  }

  get state() {
    return this.#stream.state;
  }

  get error() {
    return this.#stream.error;
  }

  get position() {
    return positionOf(this.#stream.position);
  }

  get presence() {
    return (this.#stream.presence ??= new Presence(this.#stream));
  }

  on(event, fn) {
    handlersFor(this.#stream.handlers, event).add(fn);
    return this;
  }

  off(event, fn) {
    handlersFor(this.#stream.handlers, event).delete(fn);
    return this;
  }

  async leave() {
    return this.#stream.isOver || this.#stream.client.leave(this.#stream);
  }

  async publish(body, options) {
    const said = { id: `${Math.random()}`, ...options, body, room: this.name };
    return (await this.#stream.client.ask(Op.PUBLISH, said)).id;
  }

  history(query) {
    return this.#stream.client.ask(Op.HISTORY, { ...query, room: this.name });
  }
}

/** Who is there, by key: imgo-presence.js. */
class Presence extends Map {
  count = 0;
  truncated = false;
  settling = false;
  handlers = handlersOf("join", "leave", "change", "update");
  [Symbol.iterator] = this.values;

  constructor(stream) {
    super();
    this.refresh = async (state) => (await import("./imgo-presence.js")).refresh(stream, state);
    stream.handlers.get("state").add(this.refresh);
    this.refresh(stream.state);
  }

  on(event, fn) {
    handlersFor(this.handlers, event).add(fn);
    return this;
  }

  off(event, fn) {
    handlersFor(this.handlers, event).delete(fn);
    return this;
  }
}

/** What a client knows of a `Room`. Methods return events. */
class Stream {
  state = "joining";
  error;
  position; // of the last message whose handlers are done
  timer; // until the next attempt to join
  handlers = handlersOf("state", "message", "recovered", "gap");
  #rewind;
  #received; // position of the last message that came
  #unfinished = []; // positions not reached yet, in order

  constructor(name, { rewind = 0, position, ...unknown }, client) {
    checkNone(unknown);
    const isRewind = Number.isInteger(rewind) && rewind >= 0 && rewind <= 1e5;
    check(isRewind, "rewind", "0 to 100,000", rewind);
    const given = positionOf(position);
    check(!position || given, "position", "{epoch, offset}", position);
    this.name = name;
    this.client = client;
    this.#rewind = rewind;
    this.position = this.#received = given ?? this.#load();
  }

  get isOver() {
    return this.state === "left" || this.state === "refused";
  }

  get request() {
    return this.#received ?? (this.#rewind ? { rewind: this.#rewind } : {});
  }

  accept(reply) {
    if (this.state !== "joining") return [];
    const { recovered } = reply ?? {};
    const position = positionOf(reply);
    const events = [this.#change("joined")];
    if (recovered !== undefined) {
      const done = recovered ? undefined : this.#move(position);
      const data = { recovered, position: positionOf(position) };
      events.push(["recovered", data, this.handlers, done]);
    } else if (position) {
      // If the rewind is cut off, the rest is recovered.
      position.offset = Math.max(0, position.offset - this.#rewind);
      this.#move(position)();
    }
    if (this.#rewind && !position) {
      events.push(["error", new ImgoError("no_history", `${this.name} keeps no messages`)]);
    }
    return events;
  }

  take(message) {
    const { offset } = message.frame;
    if (this.isOver) return [];
    if (offset === undefined) return [["message", message, this.handlers]];
    // Before a join's answer, it is of the last stay.
    if (this.state === "joining" || offset <= this.#received?.offset) return [];
    const done = this.#received && this.#move({ epoch: this.#received.epoch, offset });
    return [["message", { ...message, offset }, this.handlers, done]];
  }

  gap(told) {
    let position = positionOf(told);
    if (this.state !== "joined" || !position) return [];
    const { epoch, offset } = this.#received ?? {};
    if (position.epoch === epoch && position.offset < offset) position = this.#received;
    return [["gap", { position: positionOf(position) }, this.handlers, this.#move(position)]];
  }

  lose() {
    clearTimeout(this.timer);
    return this.state === "joined" ? [this.#change("joining")] : [];
  }

  end(state, error) {
    clearTimeout(this.timer);
    this.error = error;
    return [this.#change(state)];
  }

  #change(state) {
    this.state = state;
    return ["state", state, this.handlers];
  }

  /** Call the result when what comes up to here is handled. */
  #move(position) {
    this.#received = position;
    const step = { position, isDone: false };
    this.#unfinished.push(step);
    return () => {
      step.isDone = true;
      if (this.#unfinished[0] !== step) return;
      while (this.#unfinished[0]?.isDone) this.position = this.#unfinished.shift().position;
      this.#save();
    };
  }

  #load() {
    try {
      return positionOf(JSON.parse(this.client.storage.getItem(this.client.key)));
    } catch {}
  }

  #save() {
    try {
      this.client.storage.setItem(this.client.key, JSON.stringify(this.position ?? null));
    } catch {}
  }
}

function positionOf(value) {
  const { epoch, offset } = value ?? {};
  if (typeof epoch === "string" && Number.isSafeInteger(offset) && offset >= 0) {
    return { epoch, offset };
  }
}

function handlersOf(...events) {
  return new Map(events.map((event) => [event, new Set()]));
}

function handlersFor(handlers, event) {
  check(handlers.has(event), "an event", [...handlers.keys()], event);
  return handlers.get(event);
}

function parse(data) {
  try {
    const frames = typeof data === "string" ? JSON.parse(data) : data;
    if (frames.every((one) => Number.isInteger(one?.op))) return frames;
  } catch {}
  throw new ImgoError("protocol", "the server sent no list of frames");
}

function sizeOf(body) {
  return new TextEncoder().encode(JSON.stringify(body)).length;
}

function checkToken(token) {
  check(token == null || typeof token === "string", "a token", "a string", typeof token);
  return token;
}

function checkText(text, what = "a room") {
  check(text && typeof text === "string", what, "a non-empty string", text);
}

function checkNone(options) {
  for (const name in options) throw new TypeError(`no such option: ${name}`);
}

function checkTransports(all) {
  const isRight = all.length && all.every?.((one) => TRANSPORTS.includes(one));
  check(isRight, "transports", `a list of ${TRANSPORTS}`, all);
}

function check(isRight, what, right, value) {
  if (!isRight) throw new TypeError(`${what} must be ${right}, not ${value}`);
}

function toError(error) {
  return error instanceof Error ? error : new Error("not an Error", { cause: error });
}
