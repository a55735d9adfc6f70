/** The demo page: two clients in one browser, and a form that pushes to them. */
import { Imgo } from "./imgo.js";

const MAX_ITEMS = 100; // messages that a list keeps
const MAX_PUSHES = 50; // own pushes that are still looked out for
const PUSH_TIMEOUT = 10_000; // ms
const LATE = 5000; // ms until a message that should be here is called late

const config = JSON.parse(document.getElementById("demo-config").textContent);
const wsPath = document.getElementById("main").dataset.wsPath;

/** A client's panel: its state, rooms and messages. */
class Panel {
  /**
   * @param {{key: string, token: string}} client
   * @param {(panel: Panel, body: any) => string} onMessage answers what is known of the message
   */
  constructor({ key, token }, onMessage) {
    this.key = key;
    this.onMessage = onMessage;
    this.root = document.querySelector(`[data-client="${CSS.escape(key)}"]`);
    this.client = new Imgo(wsPath, { token, rooms: [config.room], name: key });
    this.client
      .on("state", () => this.showState())
      .on("message", (message) => this.addMessage(message))
      .on("close", (close) => this.note(closeText(close)))
      .on("error", (error) => this.note(error.message))
      .on("open", () => this.note(""));
    this.part("connection").addEventListener("click", () => this.toggleConnection());
    this.part("room").addEventListener("click", () => this.toggleRoom());
    this.showState();
    this.client.connect();
  }

  part(name) {
    return this.root.querySelector(`[data-part="${name}"]`);
  }

  get isOpen() {
    return this.client.state === "open";
  }

  get isInRoom() {
    return this.client.rooms.includes(config.room);
  }

  note(text) {
    this.part("note").textContent = text;
  }

  showState() {
    const { state } = this.client;
    this.part("state").dataset.state = state;
    this.part("state-text").textContent = state;
    this.part("connection").textContent = state === "closed" ? "Connect" : "Disconnect";
    this.showRooms();
  }

  showRooms() {
    const { rooms } = this.client;
    this.part("rooms-label").textContent = this.isOpen || !rooms.length ? "Rooms:" : "Will join:";
    this.part("rooms").textContent = rooms.join(", ") || "none";
    this.part("room").textContent = `${this.isInRoom ? "Leave" : "Join"} ${config.room}`;
  }

  toggleConnection() {
    if (this.client.state === "closed") {
      this.note("");
      this.client.connect();
    } else {
      this.client.close();
    }
  }

  async toggleRoom() {
    const change = this.isInRoom ? this.client.leave(config.room) : this.client.join(config.room);
    this.showRooms();
    try {
      await change;
      this.note("");
    } catch (error) {
      this.note(`${config.room}: ${error.message}`);
    }
    this.showRooms();
  }

  addMessage({ body, op }) {
    const now = new Date();
    const time = element("time", "", clock(now));
    time.dateTime = now.toISOString();
    const line = element("p", "message-line");
    line.append(time);
    if (op !== 5) line.append(element("span", "tag", `op ${op}`));
    const known = this.onMessage(this, body);
    if (known) line.append(element("span", "tag", known));
    const item = element("li", "message");
    item.append(line, element("pre", "", pretty(body)));
    const list = this.part("messages");
    list.prepend(item);
    while (list.children.length > MAX_ITEMS) list.lastChild.remove();
    this.part("empty").hidden = true;
  }
}

/**
 * The pushes that this page has sent, so that a message can be told from the push it came from.
 * A message may be here before the answer that tells its id: a push is known by its body and by
 * who should get it.
 */
class Pushes {
  #sent = [];

  /** @param {object} to @param {any} body @param {Panel[]} panels */
  add(to, body, panels) {
    const isMeant = (panel) =>
      to.key === undefined ? panel.isOpen && (to.all || panel.isInRoom) : panel.key === to.key;
    const push = {
      text: canonical(body),
      sentAt: performance.now(),
      missing: new Set(panels.filter(isMeant)),
      waits: new Set(panels.filter((panel) => isMeant(panel) && !panel.isOpen)),
      isLate: false,
      first: undefined, // {key, took} of the first panel that got it
      onFirst: undefined,
    };
    this.#sent.push(push);
    if (this.#sent.length > MAX_PUSHES) this.#sent.shift();
    return push;
  }

  remove(push) {
    this.#sent = this.#sent.filter((other) => other !== push);
  }

  /** Note that a panel got `body`; returns how long it took, "" for somebody else's push. */
  arrived(panel, body) {
    const text = canonical(body);
    const push = this.#sent.find((one) => one.missing.has(panel) && one.text === text);
    if (!push) return "";
    push.missing.delete(panel);
    const took = duration(performance.now() - push.sentAt);
    if (!push.first) {
      push.first = { key: panel.key, took };
      push.onFirst?.();
    }
    return push.waits.has(panel) ? `waited ${took}` : took;
  }
}

/** The form, and the line below it that tells what became of the newest push. */
class PushForm {
  constructor(panels, pushes) {
    this.panels = panels;
    this.pushes = pushes;
    this.form = document.getElementById("push-form");
    this.result = document.getElementById("push-result");
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.send();
    });
    const { body } = this.form.elements;
    body.addEventListener("input", () => this.showKind());
    body.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.form.requestSubmit();
    });
    this.showKind();
  }

  showKind() {
    const { isJson } = parseBody(this.form.elements.body.value);
    document.getElementById("push-kind").textContent = isJson
      ? "Sent as JSON. Ctrl+Enter sends."
      : "Not JSON: sent as a string. Ctrl+Enter sends.";
  }

  say(text, outcome) {
    this.result.textContent = text;
    this.result.dataset.outcome = outcome;
  }

  async send() {
    const to = parseTarget(this.form.elements.target.value);
    const { body } = parseBody(this.form.elements.body.value);
    const push = this.pushes.add(to, body, this.panels);
    this.newest = push;
    this.say("Sending…", "busy");
    try {
      push.id = await this.post({ to, body });
    } catch (error) {
      this.pushes.remove(push);
      if (push === this.newest) this.say(error.message, "error");
      return;
    }
    // The message may be here before the answer is.
    push.onFirst = () => this.showOutcome(push);
    this.showOutcome(push);
    setTimeout(() => {
      push.isLate = true;
      this.showOutcome(push);
    }, LATE);
  }

  showOutcome(push) {
    if (push !== this.newest) return;
    const [text, outcome] = whatBecameOf(push);
    this.say(`Accepted as ${push.id}. ${text}`, outcome);
  }

  /** Send one push; returns its id, throws an Error with a text for people. */
  async post(push) {
    let response;
    try {
      response = await fetch(config.push_url, {
        method: "POST",
        headers: {
          "Content-Type": "application/json",
          "X-CSRFToken": this.form.elements.csrfmiddlewaretoken.value,
        },
        body: JSON.stringify(push),
        signal: AbortSignal.timeout(PUSH_TIMEOUT),
      });
    } catch {
      throw new Error("The server could not be reached.");
    }
    const answer = await response.json().catch(() => ({}));
    if (response.ok && answer.id !== undefined) return answer.id;
    const texts = [answer.title, answer.detail].filter(Boolean);
    throw new Error(texts.join(": ") || `The server answered ${response.status}.`);
  }
}

/** @returns {[string, "ok"|"busy"|"error"]} */
function whatBecameOf({ first, waits, missing, isLate }) {
  if (first) return [`${first.key} had it after ${first.took}.`, "ok"];
  const [waiting] = waits;
  if (waiting) return [`It waits while ${waiting.key} is offline.`, "ok"];
  if (!missing.size) return ["No client on this page was there to get it.", "ok"];
  if (isLate) return [`No client has it after ${duration(LATE)}.`, "error"];
  return ["On its way…", "busy"];
}

function element(tag, className = "", text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

/** "key:alice", "room:lobby" or "all" → the `to` of a push. */
function parseTarget(value) {
  if (value === "all") return { all: true };
  const colon = value.indexOf(":");
  return { [value.slice(0, colon)]: value.slice(colon + 1) };
}

function parseBody(text) {
  try {
    return { body: JSON.parse(text), isJson: true };
  } catch {
    return { body: text, isJson: false };
  }
}

function pretty(body) {
  return typeof body === "string" ? body : JSON.stringify(body, undefined, 2);
}

/** The same text for the same value, whatever order its members came in. */
function canonical(body) {
  return JSON.stringify(body, (_, value) =>
    value?.constructor === Object ? Object.fromEntries(Object.entries(value).sort()) : value,
  );
}

function clock(date) {
  return date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
}

function duration(ms) {
  if (ms < 1000) return `${Math.max(1, Math.round(ms))}\u00a0ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(1)}\u00a0s`;
  return `${Math.round(ms / 60_000)}\u00a0min`;
}

function closeText({ code, reason, willReconnect, delay }) {
  if (code === 1000 && !willReconnect) return "";
  const why = [reason || "connection lost", `(${code})`].join(" ");
  return willReconnect ? `${why}, next try in ${duration(delay)}` : why;
}

/** Copy the command; where the browser forbids that (no HTTPS), select it for the user. */
async function copyCommand() {
  const result = document.getElementById("copy-result");
  const code = document.getElementById("curl");
  try {
    await navigator.clipboard.writeText(code.textContent);
    result.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(code);
    result.textContent = "Selected: press Ctrl+C";
  }
}

const pushes = new Pushes();
const panels = config.clients.map(
  (client) => new Panel(client, (panel, body) => pushes.arrived(panel, body)),
);
new PushForm(panels, pushes);
document.getElementById("copy").addEventListener("click", copyCommand);
