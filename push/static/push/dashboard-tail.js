/** The live tail: the latest pushes and session events are fetched, and new ones put on top. */

const config = JSON.parse(document.getElementById("tail-config").textContent);

const TIMEOUT = 15000; // ms of one request; without its database the server takes a while to answer
const element = (id) => document.getElementById(id);
// Swedes write times like ISO.
const clock = new Intl.DateTimeFormat("sv", { timeZone: config.zone, timeStyle: "medium" });
const LABELS = ["Time", "What", "Key or room", "Details"];

/** The rows by their ids, and what is still to come. */
class Tail {
  #seen = new Set(); // ids of the rows that are shown, and of those of the last answer
  #lastPush = null; // the highest id that was shown
  #isPaused = false;

  start() {
    element("filter").addEventListener("submit", (event) => event.preventDefault());
    element("filter").addEventListener("input", () => this.filter());
    element("pause").addEventListener("click", () => this.pause());
    this.run();
  }

  async run() {
    for (;;) {
      if (!this.#isPaused && !document.hidden) await this.fetch();
      await new Promise((resolve) => setTimeout(resolve, config.every * 1000));
    }
  }

  async fetch() {
    try {
      const options = { signal: AbortSignal.timeout(TIMEOUT), redirect: "error" };
      const answer = await fetch(config.data, options);
      if (!answer.ok) return showState("stale", await whyNot(answer));
      this.show(await answer.json());
      if (!this.#isPaused) showState("live", "Live");
    } catch (error) {
      const isLate = error.name === "TimeoutError";
      showState("stale", isLate ? "The server does not answer." : "The server cannot be reached.");
    }
  }

  show({ pushes, is_full: full, sessions }) {
    const rows = [...pushes.map(pushRow), ...sessions.map(sessionRow)];
    const ids = new Set(rows.map(({ id }) => id));
    for (const row of element("rows").rows) this.#seen.add(row.dataset.id);
    const fresh = rows.filter(({ id }) => !this.#seen.has(id)).sort((a, b) => a.at - b.at);
    const lowest = pushes.at(-1);
    if (this.#lastPush !== null && pushes.length === full && BigInt(lowest.id) > this.#lastPush + 1n) {
      const id = `gap ${lowest.id}`;
      const text = `More than ${full} pushes at once: those before ${lowest.id} are not shown.`;
      fresh.unshift({ id, at: lowest.at, kind: "pushes", cells: ["pushes", "", text] });
    }
    if (pushes.length) this.#lastPush = BigInt(pushes[0].id);
    this.#seen = ids; // an answer has all that the next one may repeat
    const body = element("rows");
    for (const row of fresh.slice(-config.kept)) body.prepend(rowOf(row));
    while (body.rows.length > config.kept) body.lastElementChild.remove();
    element("empty").hidden = body.rows.length > 0;
    this.filter();
  }

  /** Show only rows of the kinds and with the text that were chosen. */
  filter() {
    const part = element("part").value;
    for (const row of element("rows").rows) {
      row.hidden = !element(row.dataset.kind).checked || !row.textContent.includes(part);
    }
  }

  pause() {
    this.#isPaused = !this.#isPaused;
    element("pause").setAttribute("aria-pressed", this.#isPaused);
    element("pause").textContent = this.#isPaused ? "Go on" : "Pause";
    showState("waiting", this.#isPaused ? "Paused" : "Connecting");
  }
}

function showState(state, text) {
  element("state").dataset.state = state;
  if (element("state-text").textContent !== text) element("state-text").textContent = text;
}

async function whyNot(answer) {
  if (answer.status === 401) return "You are signed out: load this page again to sign in.";
  try {
    return (await answer.json()).detail;
  } catch {
    return `The server answered ${answer.status}.`;
  }
}

function pushRow({ id, target, name, keys, stored, by, at }) {
  const others = keys > 1 ? ` and ${keys - 1} more` : "";
  const to = target === "all" ? "everyone" : link(target === "room" ? "room" : "key", name, others);
  const details = `${stored ? "stored" : "live"}, by ${by || "?"}`;
  return { id: `push ${id}`, at, kind: "pushes", cells: [`push ${id}`, to, details] };
}

function sessionRow({ id, kind, key, at, node, transport, address, session, why }) {
  const where = `${session} ${transport} from ${address} on ${node}`.trim();
  const details = why ? `${why} (${where})` : where;
  return { id, at, kind: "sessions", cells: [`session ${kind}`, link("key", key), details] };
}

function link(kind, name, after = "") {
  const found = document.createElement("a");
  found.href = `${config.urls[kind]}?name=${encodeURIComponent(name)}`;
  found.textContent = name;
  const place = document.createElement("span");
  place.append(`${kind} `, found, after);
  return place;
}

function rowOf({ id, at, kind, cells }) {
  const row = document.createElement("tr");
  row.dataset.id = id;
  row.dataset.kind = kind;
  [clock.format(new Date(at * 1000)), ...cells].forEach((content, place) => {
    const cell = document.createElement(place ? "td" : "th");
    if (!place) cell.scope = "row";
    cell.dataset.label = LABELS[place];
    cell.append(content);
    row.append(cell);
  });
  return row;
}

new Tail().start();
