/**
 * The connection that the tabs of a browser share, in the tab that leads: imgo-tabs.js loads it.
 *
 * To the server it is one session, whose rooms are those of all tabs. To imgo.js each tab has a
 * session of its own: with its rooms, its positions and its requests.
 */
const Op = { DISCONNECT: 6, AUTH: 7, JOIN: 18, LEAVE: 20, ACK: 22, HISTORY: 24, DIFF: 28, GAP: 29 };

const GONE_WAIT = 500; // ms: what a tab has sent in its last moment may come behind its end
const GONE = { code: 1006, reason: "the connection of the tabs is gone" };
const UNACKNOWLEDGED = 1000; // messages that are kept for tabs that come
const ACKNOWLEDGED = 2000; // ids
const FULL_PAGE = 1000; // messages of a history
const RENEWAL = 0.9; // of a token's time; the tab whose turn it is renews it before that
const MAX_MS = 1e9; // setTimeout has a limit

/** The one connection, and what each tab is told of it. */
export class Hub {
  #id = `${Date.now()} ${Math.random()}`;
  #channel;
  #connect;
  #socket;
  #transport; // its
  #isOpen = false;
  #ack = false;
  #seq = 0;
  #calls = new Map(); // seq → what to do with the reply
  #members = new Map(); // id → {id, transport, isWanted, auth, isOpen}
  #rooms = new Map(); // name → SharedRoom
  #unacknowledged = new Map(); // id → frame
  #acknowledged = new Set(); // ids
  #expiresAt; // ms, as of `performance.now()`; undefined: the token does not expire
  #renewer; // the member whose turn it is to renew the token
  #renewTimer;

  constructor(name, connect) {
    this.#connect = connect;
    this.#channel = new BroadcastChannel(name);
    this.#channel.onmessage = ({ data }) => this.#heard(data);
    this.#channel.unref?.(); // in Node
    this.#channel.postMessage({ type: "lead", hub: this.#id });
  }

  stop() {
    this.#channel.close();
    this.#letGo();
  }

  tell(to, type, data) {
    if (to.length) this.#channel.postMessage({ ...data, type, to, hub: this.#id });
  }

  reply(member, { op, seq }, body = {}) {
    this.tell([member.id], "frames", { data: [{ ver: 1, op: op + 1, seq, body }] });
  }

  /** Ask the server. `done` gets the reply's body. */
  ask(op, body, done = () => {}) {
    const seq = (this.#seq = (this.#seq % 0x7fffffff) + 1);
    this.#calls.set(seq, { op, done });
    this.#send({ ver: 1, op, seq, body });
  }

  #send(frame) {
    this.#socket?.send(JSON.stringify(frame));
  }

  #heard({ type, from, hub, ...data }) {
    if (hub) return; // another's
    const member = this.#members.get(from);
    if (type === "hello" && !member) this.#welcome({ id: from, ...data });
    else if (type === "bye") this.#drop(member);
    else if (!member) this.tell([from], "close", GONE);
    else if (type === "ping") this.tell([from], "pong");
    else if (type === "frame") this.#take(member, data.frame);
  }

  /** `isWanted`: the tab was told to use its transport, so all tabs change to it. */
  #welcome(member) {
    if (member.isWanted && this.#socket && this.#transport !== member.transport) {
      this.#end({ code: 1006, reason: "a tab wants another transport" });
    }
    this.#members.set(member.id, member);
    this.tell([member.id], "open");
    // Held by the tab as long as it is there.
    navigator.locks.request(member.id, () => {
      setTimeout(() => this.#drop(member), GONE_WAIT);
    });
  }

  #drop(member) {
    if (!member || this.#members.get(member.id) !== member) return;
    this.#members.delete(member.id);
    this.#leaveAll(member);
    if (!this.#members.size) this.#letGo();
    else if (!this.#isOpen) this.#admitNext();
    else if (member === this.#renewer) this.#passOnRenewal();
  }

  #leaveAll(member) {
    for (const [name, room] of this.#rooms) if (room.remove(member)) this.leave(name);
  }

  // The connection

  #admitNext() {
    const [member] = [...this.#members.values()].filter(({ auth }) => auth);
    if (member && !this.#socket) this.#dial(member);
  }

  async #dial(member) {
    const isMine = () => this.#socket === socket;
    let socket = (this.#socket = { send() {}, close() {} }); // for the time being
    this.#transport = member.transport;
    try {
      const opened = await this.#connect(member.transport, member.isWanted);
      if (!isMine()) return void opened.close();
      socket = this.#socket = opened;
    } catch (error) {
      return void (isMine() && this.#end({ code: 1006, reason: String(error.message) }));
    }
    socket.onopen = () => this.#authenticate(member);
    socket.onmessage = ({ data }) => isMine() && this.#receive(data);
    socket.onclose = ({ code, reason, fault }) => isMine() && this.#end({ code, reason, fault });
    socket.onerror = () => {};
    socket.onprobe = (isBlocked) => this.#probed(isBlocked);
    if (socket.readyState === 1) socket.onopen();
  }

  #authenticate(member) {
    const { body } = member.auth;
    const { token, ack = false, ...rest } = Object(body) === body ? body : { token: body };
    const asked = roomsOf(member.auth);
    this.#ack = ack;
    const all = { ...rest, token, ack, names: true, retractions: true, rooms: Object.fromEntries(asked) };
    this.ask(Op.AUTH, all, (reply) => {
      this.#isOpen = true;
      const told = reply?.rooms ?? {};
      for (const [name] of asked) {
        if (told[name] === null) continue; // it is joined by itself
        this.#rooms.set(name, new SharedRoom(this, name, member, told[name] ?? {}));
      }
      this.#letIn(member, reply);
      if (!this.#members.has(member.id)) this.#leaveAll(member);
      for (const one of this.#members.values()) if (one.auth && !one.isOpen) this.#admit(one);
      this.#renewed(member, reply);
    });
  }

  /** Let a tab in. It joins its other rooms like those that an auth frame has no space for. */
  #admit(member) {
    const rooms = {};
    for (const [name, request] of roomsOf(member.auth)) {
      const room = this.#rooms.get(name);
      rooms[name] = null;
      const isLive = request.epoch === undefined && !request.rewind;
      if (isLive && room?.isJoined) room.admit(member, {}, (answer) => (rooms[name] = answer));
    }
    this.#letIn(member, { rooms });
    const waiting = [...this.#unacknowledged.values()];
    if (waiting.length) this.tell([member.id], "frames", { data: waiting });
    if (this.#expiresAt && !this.#renewer) this.#passOnRenewal();
  }

  #letIn(member, reply) {
    member.isOpen = true;
    this.tell([member.id], "transport", { transport: this.#transport });
    this.reply(member, member.auth, reply);
  }

  // The token

  /** A tab's token is the session's now. The tab has the reply, so it will renew the token. */
  #renewed(member, reply) {
    if (reply?.error) return;
    this.#expiresAt = reply?.expires_in && performance.now() + reply.expires_in * 1000;
    this.#renewer = member;
    if (this.#members.has(member.id) && canRenew(member)) this.#watchRenewal();
    else this.#passOnRenewal();
  }

  #watchRenewal() {
    clearTimeout(this.#renewTimer);
    const left = this.#expiresAt - performance.now();
    if (!(left > 0)) return;
    const ms = Math.min(Math.max(left * RENEWAL, 1000), MAX_MS);
    this.#renewTimer = setTimeout(() => this.#passOnRenewal(), ms);
  }

  /** The tab whose turn it was is gone, or frozen, or its token function fails. */
  #passOnRenewal() {
    const able = [...this.#members.values()].filter((one) => one.isOpen && canRenew(one));
    const next = (this.#renewer = able[(able.indexOf(this.#renewer) + 1) % able.length]);
    const left = this.#expiresAt - performance.now();
    if (next && left > 0) {
      const body = { expires_in: left / 1000 };
      this.tell([next.id], "frames", { data: [{ ver: 1, op: Op.AUTH + 1, seq: 0, body }] });
      this.#watchRenewal();
    }
  }

  #probed(isBlocked) {
    this.tell([...this.#members.keys()], "probe", { isBlocked });
    if (!isBlocked) this.#end({ code: 1006, reason: "WebSockets work" });
  }

  #end(why) {
    const to = [...this.#members.keys()];
    this.#members.clear();
    this.#letGo();
    this.tell(to, "close", why);
  }

  #letGo() {
    const socket = this.#socket;
    this.#socket = this.#expiresAt = this.#renewer = undefined;
    clearTimeout(this.#renewTimer);
    this.#isOpen = false;
    const held = [this.#calls, this.#rooms, this.#unacknowledged, this.#acknowledged];
    for (const one of held) one.clear();
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = socket.onprobe = null;
    socket.close();
  }

  // From the server

  #receive(data) {
    let frames;
    try {
      frames = typeof data === "string" ? JSON.parse(data) : data;
      for (const frame of frames) this.#route(frame);
    } catch {
      this.#end({ code: 1002, reason: "the server sent no list of frames", fault: "protocol" });
    }
  }

  #route(frame) {
    const { op, seq, body, room, id } = frame;
    const call = seq && this.#calls.get(seq);
    if (call && call.op + 1 === op) {
      this.#calls.delete(seq);
      call.done(body);
      return;
    }
    const name = op === Op.GAP || op === Op.DIFF ? body?.room : room;
    if (name !== undefined) {
      this.#rooms.get(name)?.take(frame);
      return;
    }
    if (this.#ack && !seq && typeof id === "string") {
      this.#acknowledged.delete(id); // it is wanted again
      this.#unacknowledged.set(id, frame);
      trim(this.#unacknowledged, UNACKNOWLEDGED);
    }
    const isForAll = op === Op.DISCONNECT;
    const to = [...this.#members.values()].filter(({ isOpen }) => isOpen || isForAll);
    this.tell(to.map((member) => member.id), "frames", { data: [frame] });
  }

  // From the tabs

  #take(member, frame) {
    const { op, seq, body } = frame;
    if (op === Op.AUTH && !member.isOpen) {
      member.auth = frame;
      if (this.#isOpen) this.#admit(member);
      else this.#admitNext();
    } else if (!member.isOpen) return;
    else if (op === Op.AUTH) {
      this.ask(op, body, (answer) => {
        this.reply(member, frame, answer);
        this.#renewed(member, answer);
      });
    } else if (op === Op.JOIN) this.#join(member, frame);
    else if (op === Op.LEAVE) {
      const isLast = this.#rooms.get(body)?.remove(member);
      if (isLast) this.leave(body, (answer) => this.reply(member, frame, answer));
      else this.reply(member, frame);
    } else if (op === Op.ACK) this.#acknowledge(body);
    else if (!seq) this.#send(frame);
    else this.ask(op, body, (answer) => this.reply(member, frame, answer));
  }

  #join(member, frame) {
    const { body } = frame;
    const [[name, request]] = typeof body === "string" ? [[body, {}]] : Object.entries(body);
    const room = this.#rooms.get(name);
    const done = (answer) => this.reply(member, frame, answer);
    if (room) room.admit(member, request, done);
    else {
      const made = new SharedRoom(this, name, member);
      this.#rooms.set(name, made);
      this.ask(Op.JOIN, { [name]: request }, (answer) => {
        if (answer?.error && this.#rooms.get(name) === made) this.#rooms.delete(name);
        done(answer);
        made.joined(answer);
      });
    }
  }

  /** Nobody is in it any more. */
  leave(name, done) {
    this.#rooms.delete(name);
    this.ask(Op.LEAVE, name, done);
  }

  /** Once, whichever tab is the first. */
  #acknowledge(ids) {
    const fresh = ids.filter((id) => !this.#acknowledged.has(id));
    for (const id of fresh) {
      this.#acknowledged.add(id);
      this.#unacknowledged.delete(id);
    }
    trim(this.#acknowledged, ACKNOWLEDGED);
    if (fresh.length) this.#send({ ver: 1, op: Op.ACK, seq: 0, body: fresh });
  }
}

/** A room that the session is in, or is about to be, and the tabs that are in it. */
class SharedRoom {
  #hub;
  #name;
  #members = new Map(); // member → frames that wait for what it missed; undefined: none do
  #position; // of the last message
  #arrivals = []; // those who came while the server had not answered yet

  constructor(hub, name, member, reply) {
    this.#hub = hub;
    this.#name = name;
    this.#members.set(member, undefined);
    if (reply) this.joined(reply);
  }

  /** Whether the server has let the session in. */
  get isJoined() {
    return !this.#arrivals;
  }

  joined(reply) {
    this.#position = positionOf(reply);
    const arrivals = this.#arrivals;
    this.#arrivals = undefined;
    for (const arrive of arrivals ?? []) arrive(reply?.error && reply);
  }

  /** @returns {boolean} whether nobody is in it any more */
  remove(member) {
    return this.#members.delete(member) && !this.#members.size;
  }

  take(frame) {
    const { offset, op, body } = frame;
    if (op === Op.GAP) this.#position = positionOf(body) ?? this.#position;
    else if (this.#position && offset > this.#position.offset) this.#position.offset = offset;
    const to = [];
    for (const [{ id }, held] of this.#members) held ? held.push(frame) : to.push(id);
    this.#hub.tell(to, "frames", { data: [frame] });
  }

  admit(member, request, done) {
    this.#members.set(member, []);
    if (!this.#arrivals) this.#catchUp(member, request, done);
    else this.#arrivals.push((refusal) => {
      if (refusal) done(refusal);
      else if (this.#members.has(member)) this.#catchUp(member, request, done);
    });
  }

  /** What a tab asks for that comes to a room in which the session is already. */
  async #catchUp(member, { epoch, offset, rewind = 0 }, done) {
    const hasPosition = epoch !== undefined;
    const now = this.#position && { ...this.#position };
    const isThere = now?.epoch === epoch && now?.offset === offset;
    let answer = { ...now };
    let missed = [];
    if (hasPosition) answer.recovered = isThere;
    else if (rewind && !now) answer.recovered = false; // the room keeps nothing
    if (now && !isThere && (hasPosition || rewind)) {
      try {
        const read = hasPosition ? this.#since({ epoch, offset }) : this.#newest(rewind);
        ({ answer, missed } = await read);
      } catch (error) {
        if (this.remove(member)) this.#hub.leave(this.#name);
        return done({ error });
      }
    }
    const held = this.#members.get(member) ?? [];
    done(answer);
    const frames = missed.map((message) => this.#frameOf(message));
    const top = missed.at(-1)?.offset ?? -1;
    frames.push(...held.filter(({ offset: at }) => !(at <= top)));
    if (this.#members.has(member)) this.#members.set(member, undefined);
    if (frames.length) this.#hub.tell([member.id], "frames", { data: frames });
  }

  async #newest(count) {
    const { epoch, offset, messages } = await this.#page({ limit: Math.min(count, FULL_PAGE) });
    return { answer: { epoch, offset }, missed: messages.reverse() };
  }

  /** All that was missed, or nothing: as the server does. */
  async #since({ epoch, offset }) {
    const missed = [];
    const query = { limit: FULL_PAGE, order: "oldest" };
    let page;
    do {
      page = await this.#page({ ...query, since: missed.at(-1)?.offset ?? offset });
      missed.push(...page.messages);
    } while (page.more && page.epoch === epoch);
    // Behind the reading: if the oldest is still there, nothing above it was removed meanwhile.
    const { messages: [oldest] } = await this.#page({ since: 0, limit: 1, order: "oldest" });
    const isWhole = oldest ? oldest.offset <= offset + 1 : page.offset === offset;
    const recovered = page.epoch === epoch && isWhole && offset <= page.offset;
    const answer = { epoch: page.epoch, offset: page.offset, recovered };
    return { answer, missed: recovered ? missed : [] };
  }

  #page(query) {
    return new Promise((resolve, reject) => {
      this.#hub.ask(Op.HISTORY, { ...query, room: this.#name }, (body) => {
        body?.error ? reject(body.error) : resolve(body);
      });
    });
  }

  #frameOf({ at, ...message }) {
    return { ver: 2, seq: 0, room: this.#name, ...message };
  }
}

/** What an auth frame asks for, as pairs of a room and a request. */
function roomsOf({ body }) {
  const { rooms = [] } = Object(body);
  return Array.isArray(rooms) ? rooms.map((room) => [room, {}]) : Object.entries(rooms);
}

/** Whether a tab can send another token: its token is a function. */
function canRenew({ auth }) {
  return auth?.body?.renew === true;
}

function positionOf(value) {
  const { epoch, offset } = value ?? {};
  return typeof epoch === "string" ? { epoch, offset } : undefined;
}

/** Remove the oldest of a Set or a Map. */
function trim(held, size) {
  while (held.size > size) held.delete(held.keys().next().value);
}
