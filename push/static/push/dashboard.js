/**
 * The dashboard: pictures of the installation come over our own WebSocket; while it is away, or
 * silent, they are fetched. What is shown is called stale when there has been none for a while.
 */
import { Plots } from "./dashboard-plots.js";
import { Imgo } from "./imgo.js";

const config = JSON.parse(document.getElementById("dashboard-config").textContent);

const TICK = 1000; // ms
const SILENT = config.every * 3000; // ms without a picture until one is fetched
const STALE = SILENT + 6000; // ms without a picture until what is shown is stale
const POLL_EVERY = 5000; // ms between two attempts
const POLL_TIMEOUT = 15000; // ms; without its database the server takes a while to say so

const element = (id) => document.getElementById(id);
const number = new Intl.NumberFormat("en");
// The server's zone, as on the other pages, in the admin and in logs; Swedes write times like ISO.
const timeIn = (styles) => new Intl.DateTimeFormat("sv", { timeZone: config.zone, ...styles });
const dateTime = timeIn({ dateStyle: "short", timeStyle: "medium" });
const clock = timeIn({ timeStyle: "medium" });

/** What is shown, and since when. */
class Page {
  plots = new Plots(config.span, config.zone);
  lastAt = -Infinity; // ms, of the last picture, by this page's clock
  source = "";
  failure = "";
  #client = null;
  #polledAt = -Infinity;
  #isPolling = false;

  start() {
    const { history, ...picture } = config.picture;
    this.plots.add(...history);
    this.take(picture, "page");
    if (config.ws) {
      // With a class of its own it does not fall back: without a WebSocket this page polls.
      this.#client = new Imgo(config.ws, { rooms: [config.room], ack: false, WebSocket });
      this.#client
        .on("message", ({ body }) => {
          // Pushes to everyone come here too; the mark is on pictures alone.
          if (body?.mark === picture.mark) this.take(body, "socket");
        })
        .on("error", () => {}) // the state below says what is the matter
        .on("state", () => this.showState());
      this.#client.connect();
    }
    setInterval(() => this.tick(), TICK);
    document.addEventListener("visibilitychange", () => this.tick());
  }

  take(picture, source) {
    this.lastAt = performance.now();
    this.source = source;
    this.failure = "";
    this.plots.add(picture);
    this.plots.draw();
    showTiles(picture);
    showTables(picture);
    showProblems(problemsOf(picture));
    showSource(picture.source);
    this.showState();
  }

  tick() {
    const now = performance.now();
    const patience = config.ws ? SILENT : POLL_EVERY;
    if (now - this.lastAt > patience && now - this.#polledAt > POLL_EVERY && !this.#isPolling) {
      this.poll();
    }
    this.showState();
  }

  async poll() {
    this.#isPolling = true;
    const began = (this.#polledAt = performance.now());
    let picture = null;
    let reason = "";
    try {
      const options = { signal: AbortSignal.timeout(POLL_TIMEOUT), redirect: "error" };
      const answer = await fetch(config.data, options);
      if (answer.ok) picture = await answer.json();
      else reason = await whyNot(answer);
    } catch (error) {
      const isLate = error.name === "TimeoutError";
      reason = isLate ? "The server does not answer." : "The server cannot be reached.";
    }
    this.#isPolling = false;
    if (this.lastAt > began) return; // what came over the WebSocket meanwhile is newer
    if (picture) this.take(picture, "fetch");
    else this.fail(reason);
  }

  fail(reason) {
    this.failure = reason;
    showProblems([reason]);
    this.showState();
  }

  get state() {
    if (performance.now() - this.lastAt > STALE || this.failure) return "stale";
    if (this.source === "socket" && this.#client?.state === "open") return "live";
    return this.source === "fetch" || !config.ws ? "polling" : "waiting";
  }

  showState() {
    const { state } = this;
    const texts = {
      live: "Live",
      polling: "Polling: there is no WebSocket",
      waiting: "Connecting",
      stale: "Stale: this is how it was",
    };
    element("state").dataset.state = state;
    setText(element("state-text"), texts[state]); // read out when it changes
    const age = Math.round((performance.now() - this.lastAt) / 1000);
    setText(element("age"), age > 3 ? `${age} s ago` : "");
    document.body.classList.toggle("is-stale", state === "stale");
  }
}

async function whyNot(answer) {
  if (answer.status === 401) return "You are signed out: load this page again to sign in.";
  try {
    return (await answer.json()).detail;
  } catch {
    return `The server answered ${answer.status}.`;
  }
}

// Numbers

function showTiles({ sessions, nodes, rooms, pending, pending_is_estimate: isAbout, outbox }) {
  tile("sessions", sessions);
  tile("nodes", nodes?.count);
  tile("rooms", rooms?.count);
  more("rooms", rooms?.count_is_estimate ? "an estimate" : "");
  tile("pending", pending);
  tile("waiting", outbox?.waiting);
  tile("parked", outbox?.parked, outbox?.parked > 0);
  const watching = rooms?.watching ?? 0;
  more("sessions", watching ? `${watching} of them ${watching === 1 ? "is an open dashboard" : "are open dashboards"}` : "");
  more("pending", isAbout ? "an estimate" : "");
  more("waiting", outbox?.waiting ? `the oldest for ${duration(outbox.oldest)}` : "");
  element("parked-link").hidden = !outbox?.parked;
}

function tile(name, value, isBad = false) {
  const place = document.querySelector(`[data-tile="${name}"]`);
  setText(place, value === undefined ? "–" : number.format(value));
  place.parentElement.classList.toggle("is-bad", isBad);
}

function more(name, text) {
  setText(document.querySelector(`[data-more="${name}"]`), text);
}

function problemsOf({ problems, deaf, missing, outbox, hooks, webhooks }) {
  const found = [...problems];
  if (deaf?.length) {
    found.push(`No worker takes tasks for partition ${deaf.join(", ")}. Nodes fan out its messages, some seconds late.`);
  }
  if (missing) found.push(`${missing} deliveries are unaccounted for: manage.py conserve`);
  if (outbox?.parked) {
    found.push(`${number.format(outbox.parked)} messages could not be fanned out and are parked.`);
  }
  for (const { hook, open_on: nodes } of hooks ?? []) {
    if (nodes.length) {
      found.push(`Your backend keeps failing the hook ${hook} on ${nodes.join(", ")}: manage.py hooks ping`);
    }
  }
  const givenUp = (webhooks ?? []).reduce((sum, { parked }) => sum + parked, 0);
  if (givenUp) {
    found.push(`${number.format(givenUp)} events for webhooks are parked: manage.py webhooks`);
  }
  return found;
}

/** Only what is new is added, so that it is read out once. */
function showProblems(texts) {
  const list = element("problems");
  for (const item of [...list.children]) if (!texts.includes(item.textContent)) item.remove();
  const known = new Set([...list.children].map((item) => item.textContent));
  for (const text of texts.filter((one) => !known.has(one))) {
    const item = document.createElement("li");
    item.textContent = text;
    list.append(item);
  }
  list.hidden = !texts.length;
}

/** What the figures were read from, if that is not the primary database. */
function showSource(sentence) {
  element("source").textContent = sentence ?? "";
  element("source").hidden = !sentence;
}

// Tables

const KINDS = { api: "API", worker: "worker", supervisor: "supervisor of workers" };

function showTables({ nodes, processes, silence, rooms, latest, hooks, webhooks }) {
  if (nodes) {
    const rows = nodes.rows.map((node) => {
      const drain = {
        text: "Drain",
        more: ` ${node.name}`,
        href: `${config.urls.drain}?node=${encodeURIComponent(node.id)}`,
      };
      const state = node.is_draining ? " (draining)" : "";
      const cells = [{ text: node.name + state }, count(node.sessions)];
      if (config.may.drain) cells.push(node.is_draining ? { text: "" } : drain);
      return { id: node.id, cells: [...cells, time(node.since, dateTime)] };
    });
    fill("nodes", rows, "No node is running.");
    showRest("nodes", nodes.count - rows.length, "more nodes");
  }
  if (processes) {
    const rows = processes.rows.map(({ id, kind, name, partitions, since }) => ({
      id,
      cells: [
        { text: name },
        { text: KINDS[kind] ?? kind },
        { text: partitions.join(", ") || "–" },
        time(since, dateTime),
      ],
    }));
    fill("processes", rows, "Only the nodes.");
    showRest("processes", processes.count - rows.length, "more processes");
  }
  showSilence(silence);
  if (hooks) showHooks(hooks);
  if (webhooks) showWebhooks(webhooks);
  if (rooms) {
    const rows = rooms.top.map(({ room, sessions }) => ({
      id: room,
      cells: [named(room, "room"), count(sessions)],
    }));
    fill("rooms", rows, "Nobody is in a room.");
  }
  if (latest) {
    const rows = latest.map((push) => ({
      id: push.id,
      cells: [messageLink(push.id), target(push), { text: push.by || "–" }, time(push.at, clock)],
    }));
    fill("pushes", rows, "Nothing has been pushed yet.");
  }
}

const OUTCOMES = {
  bad_answer: "unusable answer",
  circuit_open: "not called",
  overloaded: "overloaded",
  timeout: "no answer in time",
  unreachable: "unreachable",
};

/** One row for each hook that has a URL; without hooks there is no table. */
function showHooks(hooks) {
  element("hooks-card").hidden = !hooks.length;
  const rows = hooks.map(({ hook, calls, failures, mean_ms: mean, open_on: nodes }) => {
    const texts = Object.entries(failures).sort()
      .map(([name, times]) => `${OUTCOMES[name] ?? name}: ${number.format(times)}`);
    return {
      id: hook,
      cells: [
        { text: hook.replace("_", " ") },
        count(calls),
        { text: texts.join(", ") || "–" },
        { text: mean === null ? "–" : `${number.format(mean < 100 ? mean : Math.round(mean))} ms`, name: "number" },
        { text: nodes.length ? `circuit open on ${nodes.join(", ")}` : "ok", name: nodes.length ? "bad" : "" },
      ],
    };
  });
  fill("hooks", rows, "");
}

/** One row for each endpoint; without endpoints there is no table. */
function showWebhooks(webhooks) {
  element("webhooks-card").hidden = !webhooks.length;
  const rows = webhooks.map(({ endpoint, is_known, waiting, oldest, parked, error }) => ({
    id: endpoint,
    cells: [
      { text: is_known ? endpoint : `${endpoint} (removed)` },
      count(waiting),
      { text: waiting ? duration(oldest) : "–" },
      count(parked),
      { text: error || "–" },
    ],
  }));
  fill("webhooks", rows, "");
}

/** How long ago workers answered. One that takes no tasks is among the problems too. */
function showSilence(silence) {
  const seconds = Object.values(silence ?? {});
  const place = element("silence");
  place.hidden = !seconds.length;
  const ago = duration(Math.max(0, ...seconds));
  const many = seconds.length === 1 ? "the only partition" : `all ${seconds.length} partitions`;
  setText(place, seconds.length ? `Workers have answered for ${many} within ${ago}.` : "");
}

const count = (value) => ({ text: number.format(value), name: "number" });
const time = (seconds, format) => ({
  text: format.format(new Date(seconds * 1000)),
  name: "time",
});
const named = (name, kind) => ({
  text: name,
  href: `${config.urls[kind]}?name=${encodeURIComponent(name)}`,
});

function messageLink(id) {
  return config.may.messages ? { text: id, href: config.urls.message.replace("ID", id) } : { text: id };
}

function target({ target: kind, name, keys }) {
  if (kind === "all") return { text: "everyone" };
  if (kind === "room") return { ...named(name, "room"), before: "room " };
  const others = keys > 1 ? ` and ${number.format(keys - 1)} more` : "";
  return { ...named(name, "key"), before: "key ", after: others };
}

/** Change a table's body into these rows; rows that stay keep their elements, and so the focus. */
function fill(id, rows, emptyText) {
  const body = element(id);
  const known = new Map([...body.rows].map((row) => [row.dataset.id, row]));
  rows.forEach(({ id: rowId, cells }, place) => {
    const row = known.get(rowId) ?? newRow(rowId, heads(body));
    known.delete(rowId);
    cells.forEach((cell, index) => setCell(row.cells[index], cell));
    if (body.rows[place] !== row) body.insertBefore(row, body.rows[place] ?? null);
  });
  for (const row of known.values()) row.remove();
  const empty = element(`${id}-empty`);
  empty.hidden = rows.length > 0;
  setText(empty, rows.length ? "" : emptyText);
}

function showRest(id, rest, what) {
  if (rest <= 0) return;
  const place = element(`${id}-empty`);
  place.hidden = false;
  setText(place, `and ${number.format(rest)} ${what}`);
}

/** The columns' names. */
function heads(body) {
  return [...body.closest("table").tHead.rows[0].cells].map((cell) => cell.textContent);
}

function newRow(id, labels) {
  const row = document.createElement("tr");
  row.dataset.id = id;
  labels.forEach((label, place) => {
    const cell = document.createElement(place ? "td" : "th");
    if (!place) cell.scope = "row";
    if (label) cell.dataset.label = label;
    row.append(cell);
  });
  return row;
}

function setCell(cell, { text, href, before = "", after = "", more: hidden = "", name = "" }) {
  const shown = before + text + hidden + after;
  if (cell.textContent === shown && (cell.querySelector("a")?.getAttribute("href") ?? "") === (href ?? "")) {
    return;
  }
  cell.className = name;
  if (!href) {
    cell.textContent = shown;
    return;
  }
  const link = document.createElement("a");
  link.href = href;
  link.textContent = text;
  if (hidden) {
    const unseen = document.createElement("span");
    unseen.className = "unseen";
    unseen.textContent = hidden;
    link.append(unseen);
  }
  cell.replaceChildren(before, link, after);
}

function setText(place, text) {
  if (place.textContent !== text) place.textContent = text;
}

function duration(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`;
}

new Page().start();
