/**
 * Who is in a room: `room.presence`, kept by the server's snapshots (op 26) and changes (op 28).
 * imgo.js loads this module when a page reads `room.presence`.
 *
 * A change continues one version of the list. If the list has another one, it is asked for again.
 */
const SNAPSHOT = 26; // the op; the reply is 27

const SOON = 1000; // ms: the first request after a change that does not fit comes within
const RARELY = 30_000; // ms: the longest pause, if that does not help
const SETTLING = 10_000; // ms until a list that the server is collecting is asked for again
const FOR_NOW = ["timeout", "unavailable"]; // codes of refusals after which it asks again

/**
 * Follow a room. `state`: its new one. Without it, ask for the list now: the promise is resolved
 * when the list is up to date.
 */
export async function refresh(stream, state) {
  const keeper = (stream.keeper ??= new Keeper(stream));
  if (state) keeper.follow();
  else await keeper.ask();
}

class Keeper {
  #stream;
  #list; // the `Presence`
  #isListed = false; // all members are in it, as of some version
  #version; // undefined: no snapshot has come in this session
  #asking; // a promise, until the reply
  #timer; // until the next request
  #failures = 0; // requests in a row that did not help

  constructor(stream) {
    this.#stream = stream;
    this.#list = stream.presence;
  }

  /** The room has another state. */
  follow() {
    if (this.#stream.state === "joined") {
      if (!this.#asking && !this.#version) this.#askAgain();
      return;
    }
    // What comes in another session does not continue this version.
    this.#version = undefined;
    this.#failures = 0;
    this.#stopTimer();
    if (this.#stream.isOver) this.#take({ count: 0 });
  }

  ask() {
    this.#stopTimer();
    if (this.#asking) return this.#asking;
    const { client, name } = this.#stream;
    const done = () => { if (this.#asking === asking) this.#asking = undefined; };
    const taken = (reply) => {
      done(); // what comes in the same moment is behind it
      this.#adopt(reply);
    };
    const asking = client.ask(SNAPSHOT, name, taken).finally(done);
    this.#asking = asking;
    return asking;
  }

  async #askAgain() {
    try {
      await this.ask();
    } catch (error) {
      // Otherwise the next session asks.
      if (error.code === "closed" || this.#stream.state !== "joined") return;
      this.#stream.client.emit(["error", error]);
      if (FOR_NOW.includes(error.code)) this.#askLater();
    }
  }

  /** Not in the same moment as others in the room, and less often if it does not help. */
  #askLater() {
    if (this.#asking || this.#timer) return;
    const ceiling = Math.min(RARELY, SOON * 2 ** this.#failures++);
    this.#askIn(Math.random() * ceiling);
  }

  #askIn(ms) {
    this.#timer ??= setTimeout(() => this.#askAgain(), ms);
  }

  #stopTimer() {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  // What the server sends

  /** Take op 28. */
  take(change) {
    if (change.reset) this.#adopt(change);
    else if (!this.#version) return; // the reply has it
    else if (change.base === this.#version) this.#apply(change);
    else if (!isCovered(change.version, this.#version)) this.#askLater();
  }

  /** Take a list of all members. */
  #adopt({ version, count, members, settling = false }) {
    if (this.#stream.state !== "joined") return;
    this.#version = version;
    this.#stopTimer();
    if (settling) this.#askIn(SETTLING * (1 + Math.random()));
    this.#take({ count, members, settling });
  }

  #apply({ version, count, truncated, joined = [], left = [] }) {
    this.#version = version;
    this.#failures = 0;
    if (truncated) return this.#take({ count });
    const list = new Map(this.#list.entries());
    for (const key of left) list.delete(key);
    for (const member of joined) list.set(member.key, member);
    this.#take({ count, members: [...list.values()], settling: this.#list.settling });
  }

  /** Become this list, without members: of a number only; and tell what is different. */
  #take({ count, members, settling = false }) {
    const list = this.#list;
    const wasListed = this.#isListed;
    const before = [wasListed, list.count, list.truncated, list.settling].join();
    const events = this.#become(members, members && settling);
    this.#isListed = Boolean(members);
    list.truncated = !members && count > 0;
    list.settling = settling;
    list.count = settling ? Math.max(count, list.size) : count;
    const isSame = before === [this.#isListed, list.count, list.truncated, settling].join();
    // Those of a list that was not known did not join now.
    const told = wasListed && members ? events : [];
    if (events.length || !isSame) told.push(["update", list]);
    this.#stream.client.emit(...told.map(([name, data]) => [name, data, list.handlers]));
  }

  /** While the server collects its data, members may be missing: nobody leaves. */
  #become(members = [], settling) {
    const list = this.#list;
    const keys = new Set(members.map(({ key }) => key));
    const gone = settling ? [] : [...list].filter(({ key }) => !keys.has(key));
    for (const { key } of gone) list.delete(key);
    const events = gone.map((member) => ["leave", member]);
    for (const member of members) {
      const { key, info } = member;
      const old = list.get(key);
      const isSame = old === member || JSON.stringify(old?.info) === JSON.stringify(info);
      if (old && isSame) continue;
      list.set(key, { key, info });
      events.push(old ? ["change", { key, info, before: old.info }] : ["join", { key, info }]);
    }
    return events;
  }
}

/** Whether what has this version is in what has the other one, too. */
function isCovered(version, other) {
  const [[epoch, number], [ours, reached]] = [version, other].map((text) => `${text}`.split("."));
  return epoch === ours && Number(number) <= Number(reached);
}
