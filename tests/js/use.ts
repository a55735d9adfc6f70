// How a TypeScript program uses the client. tests/js/package.test.mjs has it checked, never run.
import { Imgo, ImgoError } from "imgo-client";
import type { Close, Events, Message, Options, State, StorageLike, WebSocketLike } from "imgo-client";

interface Order {
  order: number;
  status: "new" | "shipped";
}

const memory: StorageLike = { getItem: () => null, setItem() {} };
const options: Options = {
  token: async () => "token",
  rooms: ["lobby"] as const,
  ack: true,
  storage: memory,
  name: "alice",
  heartbeat: 60_000,
  timeout: 5_000,
  backoff: { max: 10_000 },
};

const client = new Imgo<Order>(new URL("wss://example.test/sub"), options);
client
  .on("message", ({ body, id }) => {
    const status: "new" | "shipped" = body.status;
    const known: string | undefined = id;
    console.log(status, known);
  })
  .on("message", async (message: Message<Order>) => void message.frame.seq)
  .on("state", (state: State) => console.log(state))
  .on("open", ({ body }) => console.log(body))
  .on("close", ({ code, reason, willReconnect, delay }: Close) => {
    console.log(code + delay, reason.trim(), !willReconnect);
  })
  .on("error", (error) => {
    if (error instanceof ImgoError) console.log(error.code.length);
  })
  .connect();

const listener = (event: Events<Order>["message"]): number => event.body.order;
client.off("message", listener).close();

const answer: { you: string } = await client.request<{ you: string }>({ ask: "who am I" });
const isIn: boolean = await client.join("lobby");
const rooms: string[] = client.rooms;
console.log(answer.you, isIn, rooms, await client.leave("lobby"));

new Imgo("/sub", { token: null, storage: null }).on("message", ({ body }) => {
  // @ts-expect-error what was pushed is not known
  body.status;
});
// What browsers have will do.
new Imgo("/sub", { WebSocket, storage: sessionStorage });
// @ts-expect-error this will not
const fits: WebSocketLike = new (class {})();
console.log(fits);

// @ts-expect-error no such event
client.on("mesage", () => {});
// @ts-expect-error a token is a string
new Imgo("/sub", { token: 42 });
// @ts-expect-error no such option
new Imgo("/sub", { tokne: "x" });
// @ts-expect-error only the client says so
client.state = "open";
