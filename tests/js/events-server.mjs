// A server of Server-Sent Events on a port of its own: a test plays imgo's part on it.
import { createServer } from "node:http";

const PATIENCE = 10_000; // real ms, whatever the mocked clock says
const { hrtime } = process;

/** Wait for what comes over the network; timers are mocked, setImmediate is not. */
export async function until(condition, what = condition) {
  const end = hrtime.bigint() + BigInt(PATIENCE) * 1_000_000n;
  for (;;) {
    const found = await condition();
    if (found) return found;
    if (hrtime.bigint() > end) throw new Error(`not in time: ${what}`);
    await new Promise((resolve) => setImmediate(resolve));
  }
}

export class EventsServer {
  streams = []; // of GETs: {query, headers, response}
  posts = []; // {frame, session, headers}
  heads = 0;
  refusal; // {status, body} of the next GETs
  isSilent = false; // GETs get no head of a response
  postStatus = () => 202; // of a POST: a number, or {status, body}
  #server;

  static async start() {
    const made = new EventsServer();
    made.#server = createServer((request, response) => made.#serve(request, response));
    await new Promise((resolve) => made.#server.listen(0, "127.0.0.1", resolve));
    return made;
  }

  get url() {
    return `ws://127.0.0.1:${this.#server.address().port}/sub`;
  }

  stop() {
    this.#server.closeAllConnections();
    this.#server.close();
  }

  async #serve(request, response) {
    const { pathname, searchParams } = new URL(request.url, "http://x");
    if (request.method === "HEAD") {
      this.heads++;
      response.writeHead(405).end();
    } else if (request.method === "POST") {
      let text = "";
      for await (const piece of request) text += piece;
      const post = { frame: JSON.parse(text), session: pathname.split("/").at(-1), headers: request.headers };
      this.posts.push(post);
      answer(response, this.postStatus(post.frame, this.posts.length));
    } else if (this.refusal) {
      answer(response, this.refusal);
    } else {
      this.streams.push({ query: searchParams, headers: request.headers, response, pathname });
      if (this.isSilent) return;
      response.writeHead(200, { "Content-Type": "text/event-stream" });
      response.flushHeaders();
    }
  }

  /** Wait for the stream with this number, from 1 on, and begin it. */
  async open(number = 1, rooms = {}) {
    const stream = await until(() => this.streams[number - 1], `stream ${number}`);
    this.send("open", { session: `s-${number}`, rooms }, number);
    return stream;
  }

  /** Write an event to the newest stream. */
  send(event, value, number = this.streams.length) {
    const name = event ? `event: ${event}\n` : "";
    this.streams[number - 1].response.write(`${name}data: ${JSON.stringify(value)}\n\n`);
  }

  message(frame) {
    this.send("", { ver: 2, op: 5, seq: 0, ...frame });
  }

  id(id) {
    this.streams.at(-1).response.write(`id: ${id}\n\n`);
  }

  /** Wait for the newest POST with this op to be there so often; its frame. */
  async posted(op, times = 1) {
    const of = () => this.posts.filter(({ frame }) => frame.op === op);
    await until(() => of().length >= times, `${times} POSTs of op ${op}`);
    return of()[times - 1].frame;
  }

  /** Reply to such a frame. */
  async reply(op, body = {}, times = 1) {
    const { seq } = await this.posted(op, times);
    this.send("imgo", { ver: 1, op: op + 1, seq, body });
  }

  /** Break the newest stream. */
  cut() {
    this.streams.at(-1).response.destroy();
  }
}

function answer(response, outcome) {
  const { status, body = {} } = typeof outcome === "number" ? { status: outcome } : outcome;
  response.writeHead(status, { "Content-Type": "application/problem+json" });
  response.end(JSON.stringify(body));
}
