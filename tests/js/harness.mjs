// What every test of the client starts from: mocked time, a fake WebSocket, clients with a log.
import { afterEach, beforeEach, mock } from "node:test";

import { Imgo, ImgoError } from "../../push/static/push/imgo.js";
import { fakeWebSocket } from "./fake-socket.mjs";

export const URL_ = "ws://example.test/sub";
export let Socket; // a class of its own for each test
export let clients; // closed after each test

beforeEach(() => {
  mock.timers.enable({ apis: ["setTimeout", "Date"] });
  performance.now = () => Date.now(); // mock.method would keep every call
  Socket = fakeWebSocket();
  clients = [];
});

afterEach(() => {
  clients.forEach((client) => client.close());
  mock.timers.reset();
  mock.restoreAll();
  delete performance.now;
});

/** A client and the log of all its events, as [name, data]. */
export function make(options = {}, url = URL_) {
  const defaults = { token: "abc", WebSocket: Socket, storage: null, random: () => 0 };
  const client = new Imgo(url, { ...defaults, ...options });
  const log = [];
  for (const event of ["state", "open", "message", "close", "error"]) {
    client.on(event, (data) => log.push([event, data]));
  }
  const of = (event) => log.filter(([name]) => name === event).map(([, data]) => data);
  Object.defineProperty(log, "of", { value: of });
  clients.push(client);
  return { client, log };
}

/** The same with an open session. */
export function makeOpen(options) {
  const made = make(options);
  made.client.connect();
  Socket.last.accept();
  return { ...made, socket: Socket.last };
}

export const tick = (ms) => mock.timers.tick(ms);
export const withCode = (code) => (error) => error instanceof ImgoError && error.code === code;
