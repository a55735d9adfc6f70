/**
 * One connection for all tabs of a browser. imgo-ways.js loads it for clients with `share`.
 *
 * One tab leads: it holds a Web Lock, and the connection. Its hub (imgo-hub.js) speaks with the
 * `SharedSocket` of each tab over a BroadcastChannel. If the leader goes, the lock passes on, and
 * the sockets close. Each client then comes back by itself, as after any other loss.
 */
const HELLO_WAIT = 3000; // ms for the leader's answer; then this tab takes the lead
const PING = 5000; // ms between two
const PINGS = 2; // without an answer

const tabs = new Map(); // Candidates by name
let sockets = 0;

/**
 * Open a tab's share of the connection; its own, where browsers have no Web Locks.
 * `way`: {transport, isWanted}. isWanted: all tabs change to it.
 */
export function shareConnection(name, way, connect) {
  if (!globalThis.navigator?.locks || !globalThis.BroadcastChannel) return connect(way.transport);
  if (!tabs.has(name)) tabs.set(name, new Candidate(name, connect));
  return new SharedSocket(name, way, tabs.get(name));
}

/** A tab that leads, or waits for its turn. */
class Candidate {
  #name;
  #connect;
  #isQueued = false;

  constructor(name, connect) {
    this.#name = name;
    this.#connect = connect;
    this.run();
  }

  /** `steal`: the leader does not answer, as in a tab that the browser has frozen. */
  async run(steal = false) {
    if (this.#isQueued && !steal) return;
    this.#isQueued = true;
    let hub;
    try {
      const { Hub } = await import("./imgo-hub.js");
      await navigator.locks.request(this.#name, { steal }, () => {
        hub = new Hub(this.#name, this.#connect);
        return new Promise(() => {}); // until the tab closes
      });
    } catch {} // another tab has taken the lead, or there is no hub
    this.#isQueued = false;
    if (!hub) return;
    hub.stop();
    this.run();
  }
}

class SharedSocket {
  onopen = null;
  onmessage = null;
  onclose = null;
  onerror = null;
  onprobe = null;
  ontransport = null; // that of the connection
  readyState = 0;

  #id = `${Date.now()} ${++sockets} ${Math.random()}`;
  #way;
  #candidate;
  #channel;
  #hub; // the id of the leader's
  #timer;
  #pings = 0; // without an answer
  #release; // of the lock that tells the leader when this tab is gone

  constructor(name, way, candidate) {
    this.#way = way;
    this.#candidate = candidate;
    this.#channel = new BroadcastChannel(name);
    this.#channel.onmessage = ({ data }) => this.#receive(data);
    navigator.locks.request(this.#id, () => {
      if (this.readyState > 1) return undefined;
      this.#greet();
      return new Promise((resolve) => { this.#release = resolve; });
    });
  }

  send(text) {
    this.#tell({ type: "frame", frame: JSON.parse(text) });
  }

  close() {
    if (this.readyState > 1) return;
    this.readyState = 3;
    clearTimeout(this.#timer);
    this.#tell({ type: "bye" });
    this.#channel.close();
    this.#release?.();
  }

  #tell(data) {
    this.#channel.postMessage({ ...data, from: this.#id });
  }

  #greet() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#candidate.run(true);
      this.#greet();
    }, HELLO_WAIT * (1 + Math.random()));
    this.#tell({ type: "hello", ...this.#way });
  }

  #receive({ type, hub, to, ...data }) {
    if (!hub || this.readyState > 1) return;
    if (type === "lead") {
      if (!this.#hub) this.#release && this.#greet();
      else if (hub !== this.#hub) this.#end(1006, "another tab has the connection now");
      return;
    }
    if (!to.includes(this.#id) || (this.#hub && hub !== this.#hub)) return;
    this.#pings = 0;
    if (type === "open" && !this.#hub) this.#opened(hub);
    else if (type === "frames") this.onmessage?.(data);
    else if (type === "probe") this.onprobe?.(data.isBlocked);
    else if (type === "transport") this.ontransport?.(data.transport);
    else if (type === "close") this.#end(data.code, data.reason, data.fault);
  }

  #opened(hub) {
    this.#hub = hub;
    this.readyState = 1;
    this.#ping();
    this.onopen?.({});
  }

  #ping() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      if (++this.#pings > PINGS) {
        this.#end(1006, "the tab with the connection does not answer");
      } else {
        this.#tell({ type: "ping" });
        this.#ping();
      }
    }, PING);
  }

  #end(code, reason, fault) {
    const told = this.onclose;
    this.close();
    told?.({ code, reason, fault });
  }
}
