// How a TypeScript program uses the client. tests/js/package.test.mjs has it checked, never run.
import { Imgo, ImgoError } from "imgo-client";
import type {
  Close, Events, History, Member, Message, Options, Position, Presence, Room, RoomMessage,
  RoomOptions, RoomState, State, StorageLike, Transport, WebSocketLike,
} from "imgo-client";
import { NotificationsError, closeNotifications, enableNotifications } from "imgo-client/notifications";
import type { EnabledNotifications } from "imgo-client/notifications";

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
  transports: ["websocket", "sse"],
  share: "alice",
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
  .on("retracted", ({ ids }) => console.log(ids.length))
  .on("acknowledged", ({ ids }) => console.log(ids.length))
  .on("read", ({ ids }) => console.log(ids.length))
  .on("error", (error) => {
    if (error instanceof ImgoError) console.log(error.code.length);
  })
  .connect();

const listener = (event: Events<Order>["message"]): number => event.body.order;
client.off("message", listener).close();

const answer: { you: string } = await client.request<{ you: string }>({ ask: "who am I" });
const isIn: boolean = await client.join("lobby");
const rooms: string[] = client.rooms;
const transport: Transport = client.connect("sse").transport;
console.log(transport);
// @ts-expect-error no such transport
client.connect("pigeon");
console.log(answer.you, isIn, rooms, await client.leave("lobby"));

const fromBackend: Position = { epoch: "9f3c2a10", offset: 41 };
const asked: RoomOptions = { rewind: 20, position: fromBackend, persist: true };
const room: Room<Order> = client.room("orders", asked);
room
  .on("message", ({ body, offset, room: name }: RoomMessage<Order>) => {
    const place: number | undefined = offset;
    console.log(body.order, place, name.length);
  })
  .on("recovered", ({ recovered, position }) => console.log(!recovered, position?.offset))
  .on("gap", ({ position }) => console.log(position.epoch))
  .on("state", (now: RoomState) => console.log(now, room.state === now, room.error?.code));
const page: History<Order> = await room.history({ before: 41, limit: 20, order: "newest" });
console.log(page.more, page.offset, page.messages[0]?.body.status, page.messages[0]?.at);
const saved: Position | undefined = room.position;
console.log(saved?.offset, room.name, await room.leave());
client.room<{ text: string }>("chat").on("message", ({ body }) => body.text.trim());
const sent: string = await room.publish({ order: 1 }, { op: 1000, store: "never", echo: false });
console.log(sent, page.messages[0]?.from);
const presence: Presence = room.presence;
presence
  .on("join", ({ key, info }) => console.log(key.trim(), info.name))
  .on("change", ({ info, before }) => console.log(info.name === before.name))
  .on("update", (list) => console.log(list === presence, list.count));
for (const { key, info } of presence) console.log(key.length, info.name);
const named = room.presence as Presence<{ name: string }>;
const first: Member<{ name: string }> | undefined = [...named][0] ?? named.get("ann");
console.log(first?.info.name.trim(), presence.truncated || presence.settling, presence.has("ann"));
await presence.refresh();
// @ts-expect-error only the client says so
presence.count = 5;
// @ts-expect-error no such event of a list
presence.on("gone", () => {});
// @ts-expect-error no such store
await room.publish(1, { store: "perhaps" });
// @ts-expect-error no such order
await room.history({ order: "best" });
// @ts-expect-error no such event of a room
room.on("open", () => {});

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
// @ts-expect-error true or false
new Imgo("/sub", { ack: 1 });
// @ts-expect-error an object with getItem and setItem
new Imgo("/sub", { storage: {} });
// @ts-expect-error no such option
new Imgo("/sub", { tokne: "x" });
// @ts-expect-error only the client says so
client.state = "open";

const enabling: Promise<EnabledNotifications> = enableNotifications("/sub", {
  token: async () => "token",
  name: "laptop",
});
enabling
  .then(({ id, disable }) => disable().then((done: boolean) => console.log(id.trim(), done)))
  .catch((error: unknown) => {
    if (error instanceof NotificationsError) console.log(error.code.trim());
  });
// @ts-expect-error no such option
enableNotifications("/sub", { tokne: "x" });
const end: () => void = closeNotifications(client);
end();
