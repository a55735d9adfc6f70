/**
 * Server-Sent Events as a WebSocket: as much of one as imgo.js uses. The auth frame becomes a GET
 * whose response has the server's frames, and each further frame a POST. imgo-ways.js loads it.
 *
 * The stream is read with `fetch`: the `EventSource` of browsers sends no Authorization header, and
 * tells nothing of a refusal.
 */
const Op = { HEARTBEAT: 2, AUTH: 7, LEAVE: 20, ACK: 22, GAP: 29 }; // the reply to `n` is `n + 1`
const ORDERED = new Set([12, 14, 16, 18, 20]); // ops that the next frame waits for

const REPLY_WAIT = 5000; // ms until a frame without a reply is sent again
const SENDS = 3; // of one frame
const FAILURES = 5; // POSTs in a row that nobody took
const PAUSE = 500; // ms after the first of them; it doubles
const SILENCE = 60_000; // ms; the server sends a comment every 25 s
const PROBE_WAIT = 10_000; // ms for a WebSocket to open
const QUERY_MAX = 4000; // characters; proxies take 8 KB for a whole request line
const SEEN = 1000; // ids

const [OPEN, CLOSED] = [1, 3];

/** Close codes of the server's refusals, by the code of its problem details. */
const REFUSALS = {
  bad_request: 4500,
  too_large: 4502,
  too_large: 4502,
  not_authenticated: 4401,
  room_forbidden: 4506,
  too_many_attempts: 4428,
  too_many_sessions: 4429,
  unavailable: 4013,
  error: 4011,
};

const HELD_BACK =
  "buffered: the server answers, but its events do not come through. A proxy holds them back: " +
  "turn off its buffering of responses for /sub/events";

export class EventsSocket {
  onopen = null;
  onmessage = null; // {data}: an array of frames, or a string that is none
  onclose = null; // {code, reason, fault}
  onerror = null;
  onprobe = null; // whether WebSockets are blocked
  readyState = OPEN; // for the auth frame

  #url; // of the stream
  // {id, known, left}: the last id, and what it covers. seen: ids, of clients that do not
  // acknowledge. It outlives this socket.
  #memory;
  #timeout; // ms until the first event
  #probe;

  #abort = new AbortController(); // of the stream
  #deadline;
  #auth; // the auth frame
  #later = []; // rooms that the GET does not ask for
  #known = new Map(); // rooms that it does → the position, if they have one
  #left = new Set(); // rooms that were left since
  #hasHead = false; // of the response
  #heardAt; // ms
  #text = ""; // of a line that is not complete
  #event = { data: [] }; // at hand

  #session;
  #queue = []; // frames to be sent
  #isSending = false;
  #posting = Promise.resolve(); // until the last POST has its answer
  #waiting = new Map(); // seq → {frame, sends, timer, done} of frames without a reply

  constructor(url, { memory = {}, timeout = 15_000, probe }) {
    this.#url = new URL(url);
    this.#url.protocol = this.#url.protocol.replace("ws", "http");
    this.#url.pathname = `${this.#url.pathname.replace(/\/+$/, "")}/events`;
    this.#memory = memory;
    this.#timeout = timeout / 2; // the client gives up after all of it
    this.#probe = probe;
  }

  send(text) {
    const frame = JSON.parse(text);
    if (!this.#auth) {
      this.#auth = frame;
      this.#listen();
      return;
    }
    if (frame.op === Op.LEAVE) this.#forget(frame.body);
    this.#queue.push(frame);
    this.#sendQueue();
  }

  close() {
    if (this.readyState === CLOSED) return;
    this.readyState = CLOSED;
    this.#letGo();
    // The server takes them as long as it knows the session.
    const acks = this.#queue.filter(({ op }) => this.#session && op === Op.ACK);
    this.#queue = [];
    Promise.all(acks.map((frame) => this.#post(frame))).then(() => this.#abort.abort());
  }

  #letGo() {
    clearTimeout(this.#deadline);
    for (const { timer, done } of this.#waiting.values()) {
      clearTimeout(timer);
      done();
    }
    this.#waiting.clear();
  }

  /** The end, as the server or the network brings it. */
  #end(code, reason, fault) {
    if (this.readyState === CLOSED) return;
    this.readyState = CLOSED;
    this.#letGo();
    this.#abort.abort();
    this.onclose?.({ code, reason, fault });
  }

  // The stream

  get #token() {
    const { body } = this.#auth;
    return typeof body === "string" ? body : body?.token;
  }

  get #acknowledges() {
    return Boolean(this.#auth.body?.ack);
  }

  async #listen() {
    this.#deadline = setTimeout(() => this.#explainSilence(), this.#timeout);
    try {
      const headers = { Accept: "text/event-stream" };
      const url = this.#address();
      if (this.#memory.id) headers["Last-Event-ID"] = this.#memory.id;
      const response = await this.#fetch(url, { headers, signal: this.#abort.signal });
      if (response.status !== 200) return this.#refused(response);
      this.#hasHead = true;
      const reader = response.body.getReader();
      const decoder = new TextDecoder();
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        this.#heardAt = performance.now();
        this.#read(decoder.decode(value, { stream: true }));
      }
      this.#end(1006, "the stream has ended");
    } catch (error) {
      this.#end(1006, `no stream: ${error.message}`);
    }
  }

  #fetch(url, { headers, ...init }) {
    const token = this.#token;
    const sent = { ...headers };
    if (/^[!-~]+$/.test(token ?? "")) sent.Authorization = `Bearer ${token}`;
    else if (token) url.searchParams.set("token", token); // a header has no place for it
    // Without a token the cookie counts, as it does for a WebSocket.
    const credentials = token ? "same-origin" : "include";
    return fetch(url, { ...init, headers: sent, credentials, cache: "no-store" });
  }

  async #refused(response) {
    const problem = await response.json().catch(() => ({}));
    const code = REFUSALS[problem.code] ?? 1006;
    this.#end(code, String(problem.detail ?? `HTTP ${response.status}`));
  }

  /** There is no first event. Does the server answer at all? */
  async #explainSilence() {
    const signal = AbortSignal.timeout(this.#timeout / 2);
    const ask = () => fetch(this.#url, { method: "HEAD", signal }).catch(() => undefined);
    const isThere = this.#hasHead || (await ask())?.status < 500;
    if (this.#session) return;
    if (isThere) this.#end(1006, HELD_BACK, "buffered");
    else this.#end(1006, "no event in time");
  }

  #watch() {
    clearTimeout(this.#deadline);
    const rest = this.#heardAt + SILENCE - performance.now();
    if (rest <= 0) this.#end(1006, "the stream is silent");
    else this.#deadline = setTimeout(() => this.#watch(), rest);
  }

  /** The URL with what the auth frame asks for, as far as a query can. */
  #address() {
    const { rooms = [] } = Object(this.#auth.body);
    const asked = Array.isArray(rooms) ? rooms.map((room) => [room, {}]) : Object.entries(rooms);
    const fresh = asked.filter(([room]) => !this.#memory.known?.has(room));
    const rewinds = new Set(fresh.map(([, { rewind = 0 }]) => rewind));
    const rewind = rewinds.size === 1 ? [...rewinds][0] : 0;
    const url = new URL(this.#url);
    const query = url.searchParams;
    if (this.#acknowledges) query.set("ack", "1");
    if (this.#auth.body?.retractions) query.set("retractions", "1");
    if (this.#auth.body?.device) query.set("device", this.#auth.body.device);
    if (rewind) query.set("rewind", rewind);
    for (const [room, request] of asked) {
      const isAsked = this.#isInQuery(room, request, rewind) && url.search.length < QUERY_MAX;
      if (isAsked) {
        query.append("rooms", room);
        this.#known.set(room, undefined);
      } else this.#later.push(room);
    }
    return url;
  }

  /** Whether the last id, or the query's one `rewind`, says what is asked for of a room. */
  #isInQuery(room, { epoch, offset, rewind = 0 }, rewindOfAll) {
    const { known, left } = this.#memory;
    if (left?.has(room)) return false;
    const position = known?.get(room);
    if (epoch !== undefined) return position?.epoch === epoch && position.offset === offset;
    return known?.has(room) ? !rewind : rewind === rewindOfAll;
  }

  #read(text) {
    const lines = (this.#text + text).split("\n");
    this.#text = lines.pop();
    for (const line of lines) {
      if (this.readyState === CLOSED) return;
      this.#readLine(line.replace(/\r$/, ""));
    }
  }

  #readLine(line) {
    if (line) {
      const [, name, value] = /^([^:]*):? ?(.*)$/s.exec(line);
      if (name === "data") this.#event.data.push(value);
      else if (name === "event" || name === "id") this.#event[name] = value;
      return;
    }
    const { event, id, data } = this.#event;
    this.#event = { data: [] };
    if (data.length) this.#dispatch(event, data.join("\n"));
    if (id) Object.assign(this.#memory, { id, known: this.#known, left: this.#left });
  }

  #dispatch(event, text) {
    let value;
    try {
      value = JSON.parse(text);
    } catch {
      this.onmessage?.({ data: text });
      return;
    }
    if (event === "open") {
      this.#opened(value);
    } else if (Number.isInteger(value?.op)) {
      this.#settle(value);
      if (this.#isNew(value)) this.onmessage?.({ data: [value] });
    } else this.onmessage?.({ data: text });
  }

  #opened({ session, rooms = {}, expires_in }) {
    this.#session = session;
    this.#watch();
    for (const [room, position] of Object.entries(rooms)) this.#move(room, position);
    const told = { ...rooms, ...Object.fromEntries(this.#later.map((room) => [room, null])) };
    const { seq } = this.#auth;
    const body = { rooms: told, expires_in };
    this.onmessage?.({ data: [{ ver: 1, op: Op.AUTH + 1, seq, body }] });
    this.#sendQueue();
    this.#tryWebSocket();
  }

  /** Follow the positions; whether a client that knows no ids has not had it yet. */
  #isNew({ op, id, room, offset, body }) {
    if (op === Op.GAP) this.#move(body?.room, body);
    const { epoch } = this.#known.get(room) ?? {};
    if (epoch !== undefined && offset !== undefined) this.#move(room, { epoch, offset });
    if (this.#acknowledges || id === undefined) return true;
    const seen = (this.#memory.seen ??= new Set());
    if (seen.has(id)) return false;
    seen.add(id);
    if (seen.size > SEEN) seen.delete(seen.values().next().value);
    return true;
  }

  #move(room, { epoch, offset }) {
    if (this.#known.has(room) && epoch !== undefined) this.#known.set(room, { epoch, offset });
  }

  #forget(room) {
    for (const { known, left } of [this.#memory, { known: this.#known, left: this.#left }]) {
      known?.delete(room);
      left?.add(room);
    }
  }

  /** SSE works: is it true that WebSockets do not? */
  async #tryWebSocket() {
    if (!this.#probe) return;
    let timer;
    try {
      const socket = await this.#probe();
      const isAnswered = await new Promise((resolve) => {
        timer = setTimeout(resolve, PROBE_WAIT, false);
        // Some proxies let it open, and nothing through. This frame is one too early: a server
        // refuses it.
        socket.onopen = () => socket.send(JSON.stringify({ ver: 1, op: Op.HEARTBEAT, seq: 1 }));
        socket.onmessage = () => resolve(true);
        socket.onclose = ({ code }) => resolve(code >= 4000);
      });
      clearTimeout(timer);
      socket.close();
      if (this.readyState === OPEN) this.onprobe?.(!isAnswered);
    } catch {} // there are no WebSockets
  }

  // Frames of the client

  async #sendQueue() {
    if (this.#isSending) return;
    this.#isSending = true;
    while (this.#queue.length && this.#session && this.readyState === OPEN) {
      await this.#deliver(this.#queue[0]);
      this.#queue.shift();
    }
    this.#isSending = false;
  }

  /** Send a frame until somebody has taken it; one that others depend on, until its reply. */
  async #deliver(frame) {
    const reply = frame.seq && !this.#waiting.has(frame.seq) && this.#expect(frame);
    for (let failures = 1; this.readyState === OPEN; failures++) {
      const response = await this.#post(frame);
      if (response?.status === 202) break;
      if (response && response.status < 500 && response.status !== 408 && response.status !== 429) {
        return this.#failed(frame, response);
      }
      if (failures === FAILURES) return this.#end(1006, "the server takes no frames");
      await after(PAUSE * 2 ** (failures - 1));
    }
    this.#repeatLater(frame);
    if (ORDERED.has(frame.op)) await reply;
  }

  /** One after the other. */
  #post(frame) {
    this.#posting = this.#posting.then(() => this.#request(frame));
    return this.#posting;
  }

  /** undefined: there was no answer. */
  async #request({ op, seq, body }) {
    const url = new URL(this.#url);
    url.pathname += `/${this.#session}`;
    const headers = { "Content-Type": "application/json" };
    const text = JSON.stringify({ op, seq, body });
    // Acknowledgements outlive the page.
    const init = { method: "POST", headers, body: text, keepalive: op === Op.ACK };
    try {
      return await this.#fetch(url, { ...init, signal: AbortSignal.timeout(REPLY_WAIT) });
    } catch {
      return undefined;
    }
  }

  async #failed(frame, response) {
    const problem = await response.json().catch(() => ({}));
    const message = String(problem.detail ?? `HTTP ${response.status}`);
    if (response.status === 404) return this.#end(1006, "the server has no such session");
    if (response.status === 401 || !frame.seq) {
      return this.#end(REFUSALS[problem.code] ?? 1006, message);
    }
    const error = { code: String(problem.code ?? "refused"), message };
    const reply = { ver: 1, op: frame.op + 1, seq: frame.seq, body: { error } };
    this.#settle(reply);
    if (this.readyState === OPEN) this.onmessage?.({ data: [reply] });
  }

  /** A promise of the reply, or of the end of waiting for it. */
  #expect(frame) {
    return new Promise((done) => this.#waiting.set(frame.seq, { frame, sends: 1, done }));
  }

  #repeatLater({ seq }) {
    const call = this.#waiting.get(seq);
    if (!call) return;
    call.timer = setTimeout(() => {
      if (++call.sends > SENDS) this.#settle({ op: call.frame.op + 1, seq });
      else this.#post(call.frame).then(() => this.#repeatLater(call.frame));
    }, REPLY_WAIT);
  }

  #settle({ op, seq, body }) {
    const call = this.#waiting.get(seq);
    if (call?.frame.op + 1 !== op) return;
    clearTimeout(call.timer);
    this.#waiting.delete(seq);
    // The next requests carry the renewed token. Its frame does not repeat `ack`.
    const { op: sent, body: auth } = call.frame;
    if (sent === Op.AUTH && body && !body.error) {
      this.#auth.body = { ack: this.#acknowledges, token: auth.token };
    }
    call.done();
  }
}

const after = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
