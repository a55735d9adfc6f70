/**
 * How a client gets to its server: the transport whose turn it is, and what is remembered of that.
 * imgo.js loads this module when a WebSocket alone will not do.
 */
const TRANSPORTS = ["websocket", "sse"];
const MISSES = 2; // attempts that nobody answered, until it is the next transport's turn
const DAY = 86_400_000; // ms

export class Ways {
  transport; // of the session, or of the newest attempt
  #isWanted; // `connect()` was called with it
  #choices; // the client's options; `wanted`: what `connect()` was called with
  #transports;
  #blockedUntil; // ms since 1970: until then SSE comes before WebSocket
  #ahead = 0; // misses that are added, so that it is the wanted transport's turn
  #memory = {}; // of SSE: where its last stream has ended

  constructor(choices) {
    this.#choices = choices;
    const { transports, WebSocket } = choices;
    const usual = WebSocket ? ["websocket"] : TRANSPORTS;
    this.#transports = transports?.length ? transports : usual;
  }

  /** Choose the transport of an attempt. `misses`: attempts before it without an answer. */
  choose(misses) {
    const { wanted } = this.#choices;
    this.#isWanted = Boolean(wanted);
    if (wanted) {
      this.#choices.wanted = undefined;
      this.#remember(wanted === "sse");
      this.#ahead = this.#turn(0) === wanted ? 0 : MISSES;
    }
    this.transport = this.#turn(misses + this.#ahead);
  }

  /** Open a connection over the transport that was chosen. */
  async open() {
    const { share, client } = this.#choices;
    if (this.transport === "websocket") this.#memory = {};
    const connect = (transport, isWanted) => this.#connect(transport, isWanted);
    const way = { transport: this.transport, isWanted: this.#isWanted };
    const socket = share
      ? await (await import("./imgo-tabs.js")).shareConnection(this.#name, way, connect)
      : await connect(this.transport);
    socket.ontransport = (transport) => (this.transport = transport);
    socket.onprobe = (isBlocked) => {
      if (isBlocked) this.#remember(true);
      else client.connect("websocket");
    };
    return socket;
  }

  get #name() {
    return `imgo ${this.#choices.url} ${this.#choices.share}`;
  }

  #turn(misses) {
    const first = this.#isBlocked ? Math.max(0, this.#transports.indexOf("sse")) : 0;
    const index = first + Math.floor(misses / MISSES);
    return this.#transports[index % this.#transports.length];
  }

  async #connect(transport, isWanted = false) {
    const { url, timeout = 15_000, WebSocket = globalThis.WebSocket } = this.#choices;
    if (transport === "sse") {
      let EventsSocket;
      try {
        ({ EventsSocket } = await import("./imgo-sse.js"));
      } catch (error) {
        if (!this.#transports.includes("websocket")) throw error;
        this.transport = "websocket"; // the server is away, with all its modules
        return this.#connect("websocket");
      }
      // Not before SSE works: else the server is away, and the network blocks nothing.
      const isUnsure = !isWanted && this.#transports[0] === "websocket" && !this.#isBlocked;
      const probe = isUnsure ? () => this.#connect("websocket") : undefined;
      return new EventsSocket(url.href, { memory: this.#memory, timeout, probe });
    }
    // Node 20 has none of its own.
    const Chosen = WebSocket ?? (await import("./websocket-node.js")).NodeWebSocket;
    return new Chosen(url.href);
  }

  // What is remembered, by URL. imgo.js reads it too.

  get #isBlocked() {
    let until;
    try {
      until = localStorage.getItem(`imgo ${this.#choices.url}`); // other tabs change it
    } catch {} // it is forbidden
    return (until ?? this.#blockedUntil) > Date.now();
  }

  #remember(isBlocked) {
    this.#ahead = 0;
    this.#blockedUntil = isBlocked ? Date.now() + DAY : 0;
    try {
      localStorage.setItem(`imgo ${this.#choices.url}`, this.#blockedUntil);
    } catch {} // it is forbidden, or full
  }
}
