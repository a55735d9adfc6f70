// A page with the JavaScript client on it, as a process: told by lines of JSON what to do, it tells
// by lines of JSON what happens. Killed and started again it is a page that was reloaded.
import { readFileSync, writeFileSync } from "node:fs";
import { createInterface } from "node:readline";

const [client_, url, optionsText, storageFile] = process.argv.slice(2);
const { Imgo } = await import(client_);

const tell = (...words) => writeFileSync(1, `${JSON.stringify(words)}\n`);

/** The tab's storage, which outlives the page. */
const storage = storageFile && {
  read() {
    try {
      return JSON.parse(readFileSync(storageFile, "utf8"));
    } catch {
      return {};
    }
  },
  getItem(name) {
    return this.read()[name];
  },
  setItem(name, value) {
    writeFileSync(storageFile, JSON.stringify({ ...this.read(), [name]: value }));
  },
};

// `tokens`: what the token function returns, one after the other.
const { joins = {}, tokens, ...options } = JSON.parse(optionsText);
if (tokens) options.token = async () => tokens.shift();
const client = new Imgo(url, { storage, ...options });

/** The page's rooms, by name; all that happens in them is told. */
const rooms = new Map();
function enter(name, roomOptions) {
  const room = client.room(name, roomOptions);
  rooms.set(name, room);
  room.on("state", (state) => tell("room state", name, state, room.error?.code));
  room.on("recovered", ({ recovered, position }) => tell("recovered", name, recovered, position));
  room.on("gap", ({ position }) => tell("gap", name, position));
  room.on("message", async ({ body, offset }) => {
    tell("room message", name, body, offset);
    await null; // a handler that takes its time
  });
}

for (const [name, roomOptions] of Object.entries(joins)) enter(name, roomOptions);
client
  .on("state", (state) => tell("state", state))
  .on("message", async ({ body, id }) => {
    tell("message", body, id);
    await null; // a handler that takes its time
  })
  .on("close", ({ code, willReconnect }) => tell("close", code, willReconnect))
  .on("error", ({ name, code, message }) => tell("error", name, code, message))
  .connect();

for await (const line of createInterface({ input: process.stdin })) {
  const [method, ...values] = JSON.parse(line);
  // At once, between two messages, as a browser does it.
  if (method === "reload") process.exit();
  try {
    if (method === "room") tell("answer", enter(...values) ?? null);
    else if (method === "in") {
      const [name, what, ...rest] = values;
      tell("answer", (await rooms.get(name)[what](...rest)) ?? null);
    } else tell("answer", (await client[method](...values)) ?? null);
  } catch ({ name, code, message }) {
    tell("refused", name, code, message);
  }
}
