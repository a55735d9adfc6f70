// A WebSocket without a network: a test plays the server's part on it.

/** A WebSocket class of its own for one test; `sockets` are all that were made of it. */
export function fakeWebSocket() {
  return class FakeWebSocket {
    static sockets = [];

    static get last() {
      return this.sockets.at(-1);
    }

    sent = []; // frames of the client
    closed = undefined; // the arguments of the client's close()

    constructor(url) {
      this.url = url;
      FakeWebSocket.sockets.push(this);
    }

    send(text) {
      this.sent.push(JSON.parse(text));
    }

    close(...args) {
      this.closed = args;
    }

    /** The newest frame of the client with this op. */
    lastOf(op) {
      return this.sent.findLast((frame) => frame.op === op);
    }

    // What the server and the network do

    open() {
      this.onopen?.({});
    }

    receive(...frames) {
      const whole = frames.map((frame) => ({ ver: 1, seq: 0, body: {}, ...frame }));
      this.receiveRaw(JSON.stringify(whole));
    }

    receiveRaw(data) {
      this.onmessage?.({ data });
    }

    drop(code = 1006, reason = "") {
      this.onclose?.({ code, reason });
    }

    /** Open, and accept whatever auth frame comes. */
    accept() {
      this.open();
      this.receive({ op: 8, seq: this.lastOf(7).seq });
    }

    get isDetached() {
      return !this.onopen && !this.onmessage && !this.onclose;
    }
  };
}

/** Let promises settle; timers are mocked, setImmediate is not. */
export const settled = () => new Promise((resolve) => setImmediate(resolve));
