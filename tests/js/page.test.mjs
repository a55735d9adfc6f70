// What {% imgo %} puts on a page: connected as its attributes say, and told by DOM events.
import assert from "node:assert/strict";
import { after, before, describe, mock, test } from "node:test";

import { ImgoError } from "../../push/static/push/imgo.js";
import { fakeWebSocket } from "./fake-socket.mjs";

const Socket = fakeWebSocket();
const dataset = {
  imgoUrl: "/sub",
  imgoName: "7",
  imgoToken: "abc",
  imgoRooms: '["lobby"]',
};
const heard = [];
let document_;

before(async () => {
  document_ = Object.assign(new EventTarget(), { querySelector: () => ({ dataset }) });
  for (const name of ["state", "open", "message", "close", "error"]) {
    document_.addEventListener(`imgo:${name}`, ({ detail }) => heard.push([name, detail]));
  }
  mock.timers.enable({ apis: ["setTimeout", "Date"] });
  Object.assign(globalThis, {
    document: document_,
    location: { href: "https://page.test/shop/" },
    WebSocket: Socket,
  });
  await import("../../push/static/push/page.js");
});
after(() => {
  globalThis.imgo.close();
  mock.timers.reset();
});

describe("the page", () => {
  test("is connected with what the element says", () => {
    assert.equal(Socket.last.url, "wss://page.test/sub");
    Socket.last.accept();
    assert.deepEqual(Socket.last.sent[0].body, { token: "abc", rooms: ["lobby"], ack: true, retractions: true });
    assert.equal(globalThis.imgo.state, "open");
    assert.deepEqual(heard.splice(0), [
      ["state", "connecting"],
      ["state", "open"],
      ["open", { body: {} }],
    ]);
  });

  test("hears of messages, which are acknowledged", () => {
    Socket.last.receive({ op: 5, id: "1", body: { order: 7 } });
    const [[name, { body, id }]] = heard.splice(0);
    assert.deepEqual([name, body, id], ["message", { order: 7 }, "1"]);
    mock.timers.tick(100);
    assert.deepEqual(Socket.last.lastOf(22).body, ["1"]);
  });

  test("hears of errors, which are on the console too unless it takes care of them", () => {
    const console_ = mock.method(console, "error", () => {});
    Socket.last.receiveRaw("garbage");
    const [[name, error]] = heard.splice(0);
    assert.ok(name === "error" && error instanceof ImgoError);
    assert.equal(console_.mock.callCount(), 1);
    document_.addEventListener("imgo:error", (event) => event.preventDefault());
    mock.timers.tick(30_000);
    Socket.last.receiveRaw("garbage");
    assert.equal(console_.mock.callCount(), 1);
  });

  test("shares a connection and chooses a transport, if the element says so", async () => {
    globalThis.imgo.close();
    Object.assign(dataset, { imgoShare: "7", imgoTransports: "sse,websocket" });
    const channel = new BroadcastChannel("imgo wss://page.test/sub 7");
    const heard = new Promise((resolve) => (channel.onmessage = ({ data }) => resolve(data)));
    await import("../../push/static/push/page.js?shared");
    const { type, transport } = await heard;
    assert.deepEqual([type, transport], ["hello", "sse"]);
    channel.close();
  });
});
