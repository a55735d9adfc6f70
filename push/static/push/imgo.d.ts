/**
 * - `connecting`: an attempt is under way
 * - `open`: the server has accepted the session
 * - `waiting`: for the next attempt
 * - `offline`: the browser says that there is no network; the next attempt is made when there is
 *   one again, or after the longest pause
 * - `closed`: until `connect()`: it was not called yet, or `close()` was, or the server's close
 *   code says not to come back
 */
export type State = "connecting" | "open" | "waiting" | "offline" | "closed";

/** How a session reaches the server: `sse` is a stream of Server-Sent Events, and POSTs. */
export type Transport = "websocket" | "sse";

/** A frame as the server has sent it. */
export interface Frame<Body = unknown> {
  readonly ver: number;
  readonly op: number;
  readonly seq: number;
  /** With `ack`, or from a room with a `Room`. It may be more than a number holds exactly. */
  readonly id?: string;
  /** The room that it was pushed to, in sessions that know rooms: see `Message`. */
  readonly room?: string;
  /** Its place in the room's stream, if the room keeps it. */
  readonly offset?: number;
  /** The key of the client that has published it: see `Message`. */
  readonly from?: string;
  readonly body: Body;
}

export interface Message<Body = unknown> {
  /** What was pushed: the value where it was JSON, else a string. */
  readonly body: Body;
  /** 5, or the application's own number from 1000 on. */
  readonly op: number;
  /** The same whenever the message is delivered; undefined without `ack`. */
  readonly id: string | undefined;
  /** The room that it was pushed to; only in sessions in which `Imgo.room` was called. */
  readonly room?: string;
  /** The key of the client that has published it to the room; undefined for other pushes. */
  readonly from?: string;
  readonly frame: Frame<Body>;
}

/** A place in a room's stream. Offsets of another epoch mean nothing. */
export interface Position {
  readonly epoch: string;
  readonly offset: number;
}

/** A message of a `Room`. */
export interface RoomMessage<Body = unknown> extends Message<Body> {
  readonly room: string;
  /** Its place in the stream; undefined if the room does not keep it. */
  readonly offset?: number;
}

/**
 * - `joining`: not in the room yet, or there is no session; the next one asks for it
 * - `joined`: the server has confirmed it
 * - `left`: `leave()` was called
 * - `refused`: the server has refused it, see `Room.error`
 */
export type RoomState = "joining" | "joined" | "left" | "refused";

export interface RoomEvents<Body = unknown> {
  state: RoomState;
  message: RoomMessage<Body>;
  /**
   * The server's answer to a position. true: all that was missed follows. false: it does not, so
   * load your state another way. `position`: where live messages begin; undefined if the room
   * keeps no messages, or none any more. A `rewind` gets this answer only from such a room.
   */
  recovered: { readonly recovered: boolean; readonly position: Position | undefined };
  /** Messages up to `position` are missing and will not come: load your state another way. */
  gap: { readonly position: Position };
}

export interface RoomOptions {
  /** So many of the newest messages at first, at most 100,000. Not with a position. Default: 0. */
  rewind?: number;
  /** Begin behind this one: that of the state that the page has loaded. */
  position?: Position | null;
  /** Keep the position in the client's `storage`, so that it outlives the page. Default: false. */
  persist?: boolean;
}

export interface PublishOptions {
  /** The application's own number, from 1000 on. Default: 5. */
  op?: number;
  /** `never`: a room with history does not keep it. It has no offset then. Default: `always`. */
  store?: "always" | "never";
  /** false: this session does not get it back; others of the same key do. Default: true. */
  echo?: boolean;
  /**
   * Of a message that may have been published already, because the answer was lost: the server
   * publishes it once. Default: a new one.
   */
  id?: string;
}

export interface HistoryQuery {
  /** Only offsets above this one. */
  since?: number;
  /** Only offsets below this one. */
  before?: number;
  /** Messages at most, up to 1,000. Default: 100. */
  limit?: number;
  /** Which come first. Default: `oldest` with `since`, else `newest`. */
  order?: "newest" | "oldest";
}

export interface KeptMessage<Body = unknown> {
  readonly offset: number;
  readonly id: string;
  readonly op: number;
  /** When it was accepted: Unix time, seconds. */
  readonly at: number;
  /** The key of the client that has published it; undefined for other pushes. */
  readonly from?: string;
  readonly body: Body;
}

export interface History<Body = unknown> extends Position {
  readonly room: string;
  /** Further messages match. */
  readonly more: boolean;
  readonly messages: readonly KeptMessage<Body>[];
}

/** A key that is in a room. `Info`: what the key's login says of it. */
export interface Member<Info = Record<string, unknown>> {
  readonly key: string;
  readonly info: Info;
}

export interface PresenceEvents<Info = Record<string, unknown>> {
  /** A key came into the room. */
  join: Member<Info>;
  /** A key left it: no session of it is there any more. */
  leave: Member<Info>;
  /** The info of a key is another one. `before`: the one that it had. */
  change: Member<Info> & { readonly before: Info };
  /** The list or its count is another one: after the events of the members, once for all. */
  update: Presence<Info>;
}

/**
 * Who is in a room: a list that keeps itself right. `Room.presence` makes it.
 *
 * After a reconnect the events tell what differs from the list before. A list that was not known
 * before is no `join` of its members: only an `update`.
 */
export interface Presence<Info = Record<string, unknown>> extends Iterable<Member<Info>> {
  /** Keys in the room. 0: not known yet, or the room was left. */
  readonly count: number;
  /** The room has more members than the server lists: the list is empty, and `count` is right. */
  readonly truncated: boolean;
  /** The server has lost its list and collects it again: keys may be missing, or too many. */
  readonly settling: boolean;

  get(key: string): Member<Info> | undefined;

  has(key: string): boolean;

  on<Name extends keyof PresenceEvents>(
    name: Name,
    handler: (event: PresenceEvents<Info>[Name]) => unknown,
  ): this;

  off<Name extends keyof PresenceEvents>(
    name: Name,
    handler: (event: PresenceEvents<Info>[Name]) => unknown,
  ): this;

  /**
   * Ask the server now, and wait until the list is up to date. Needed only in rooms whose policy
   * sends no changes (`presence_events`). Rejects as `Imgo.request` does.
   */
  refresh(): Promise<void>;
}

export interface Close {
  /** The server's close code (4000 and above), or WebSocket's own. */
  readonly code: number;
  readonly reason: string;
  readonly willReconnect: boolean;
  /** ms until the next attempt; 0 without one. */
  readonly delay: number;
}

export interface Events<Body = unknown> {
  state: State;
  /**
   * The session is open; `body` is that of the auth reply. A room that is null in it is joined
   * afterwards; over SSE these are those with a position, too.
   */
  open: { readonly body: unknown };
  message: Message<Body>;
  /** A session or an attempt has ended. */
  close: Close;
  /** The server takes messages back that were cancelled: hide those that are shown. */
  retracted: { readonly ids: readonly string[] };
  /** These messages were handled, and the server is told: close what shows them elsewhere. */
  acknowledged: { readonly ids: readonly string[] };
  /** Another device of the key has acknowledged these messages: show them as read. */
  read: { readonly ids: readonly string[] };
  /**
   * What went wrong and is nobody's answer: a handler or the token function failed, the server
   * sent garbage, a room was refused after a reconnect. Without a handler it goes to the console.
   */
  error: Error;
}

/** As much of a WebSocket as the client uses. */
export interface WebSocketLike {
  onopen: ((event: any) => any) | null;
  onmessage: ((event: any) => any) | null;
  onclose: ((event: any) => any) | null;
  onerror: ((event: any) => any) | null;
  send(data: string): void;
  close(): void;
}

/** As much of a Web Storage as the client uses. */
export interface StorageLike {
  getItem(name: string): string | null | undefined;
  setItem(name: string, value: string): void;
}

type Token = string | null | undefined;

export interface Options {
  /**
   * A function is asked for each attempt, and for another token before the one of the session
   * expires; if it fails then, it is asked again while there is time. Without a token the server
   * tries the Django session.
   */
  token?: Token | (() => Token | Promise<Token>);
  /** Rooms to be in from the beginning. */
  rooms?: readonly string[];
  /**
   * Acknowledge each message once all its handlers have returned, or their promises have been
   * resolved, and show none twice. Default: true.
   */
  ack?: boolean;
  /**
   * Where ids of messages that were handled outlive the page; null: nowhere. Default: the tab's
   * `sessionStorage`, where there is one.
   */
  storage?: StorageLike | null;
  /**
   * Whose ids these are, for pages with clients of several keys and for tabs that users take turns
   * in: the key will do. Default: "".
   */
  name?: string;
  /**
   * Name of this browser or app: 1 to 64 letters, digits, ".", "_", ":" and "-". If the key has the
   * scope `each`, every device gets and acknowledges all messages. Default: none, as all clients
   * without a name, which are one device.
   */
  device?: string | null;
  /** ms between heartbeats; each is up to 10% early. Default: 240,000. */
  heartbeat?: number;
  /** ms for an attempt, the token included, and for an answer. Default: 15,000. */
  timeout?: number;
  /**
   * ms between attempts: drawn between `min` and a ceiling that doubles up to `max`. A session
   * that lasts for `max` starts it anew. Default: 500 and 30,000.
   */
  backoff?: { min?: number; max?: number };
  /**
   * Bytes that the server takes in one frame's body, its MAX_CLIENT_BODY. Default: 1,024. An auth
   * frame with rooms of `Imgo.room` may have 8,192.
   */
  maxBody?: number;
  /**
   * One or both of them, the preferred one first. After two attempts in a row that nobody
   * answered comes the next one. That WebSockets are blocked is remembered for a day, in
   * `localStorage`. Default: both, WebSocket first; with `WebSocket` only that.
   */
  transports?: readonly Transport[];
  /**
   * Share one connection with the other tabs of this browser whose clients have the same URL and
   * the same text here, which is not empty. It stands for the user: the key will do. Default: no
   * sharing.
   */
  share?: string;
  /** Default: the global one, or where there is none (Node 20) that of `websocket-node.js`. */
  WebSocket?: new (url: string) => WebSocketLike;
  /** Default: Math.random. */
  random?: () => number;
}

/**
 * `code`: `closed` (no session, or it ended before the answer), `timeout`, `too_large`,
 * `protocol` (the server sent no list of frames), `buffered` (a proxy holds the stream back: turn
 * off its buffering), or the server's word for a refusal, such as `room_forbidden`.
 */
export class ImgoError extends Error {
  constructor(code: string, message: string);
  readonly name: "ImgoError";
  readonly code: string;
}

/** One session that comes back by itself. `Body`: of the messages that it gets. */
export class Imgo<Body = unknown> {
  /**
   * @param url may be relative to the page; `https:` means `wss:`
   * @throws TypeError for an option with a wrong value, and for one that is not in `Options`
   */
  constructor(url: string | URL, options?: Options);

  readonly state: State;

  /** That of the session, or of the newest attempt. */
  readonly transport: Transport;

  /** Those it is in, or asks for in its next session. */
  readonly rooms: string[];

  /**
   * Call `handler` for each event of this name. What it throws, or its promise is rejected with,
   * becomes an `error` event; and that of a message lets the server send the message again.
   */
  on<Name extends keyof Events>(name: Name, handler: (event: Events<Body>[Name]) => unknown): this;

  off<Name extends keyof Events>(name: Name, handler: (event: Events<Body>[Name]) => unknown): this;

  /**
   * Start, or skip the pause before the next attempt. After an end that `close()` did not bring,
   * its first `backoff.min` stays.
   * @param transport use this one from now on, in all tabs that share, and remember that
   * @throws TypeError for a transport that there is not
   */
  connect(transport?: Transport): this;

  /** End the session and stay away until `connect()`. Rooms are kept for then. */
  close(): void;

  /**
   * Send `body` upstream: the answer's body. Rejects with an `ImgoError` if no session is open or
   * the answer is `{error: {code: string, message}}`, with a `TypeError` for a body that is no
   * JSON. A body may have 1,024 bytes.
   */
  request<Answer = unknown>(body?: unknown): Promise<Answer>;

  /**
   * Join a room, in this session and in all that follow.
   * @returns true: the server has confirmed it; false: without a session, the next one asks for
   *   the room. Rejects with an `ImgoError` when refused: then the room is forgotten.
   */
  join(room: string): Promise<boolean>;

  /** Leave a room. Settles as `join` does. */
  leave(room: string): Promise<boolean>;

  /**
   * Join a room, in this session and in all that follow, and keep the place in its stream: after
   * a reconnect the client asks for what it has missed. Messages of the room go to the `Room`.
   * @throws TypeError for options that can not be, and while the client has joined this room
   */
  room<RoomBody = Body>(name: string, options?: RoomOptions): Room<RoomBody>;
}

/** A room and the place in its stream. `Imgo.room` makes it. */
export interface Room<Body = unknown> {
  readonly name: string;
  readonly state: RoomState;
  /** Why the server has refused it. */
  readonly error: ImgoError | undefined;
  /**
   * That of the last message whose handlers are done. undefined: none is known, because the room
   * was not joined yet or keeps no messages.
   */
  readonly position: Position | undefined;

  /**
   * Who is in the room, if its policy has `presence`. Reading it for the first time loads a module,
   * and begins to keep the list; what the server refuses is an `error` event of the client.
   */
  readonly presence: Presence;

  /**
   * Call `handler` for each event of this name. What it throws, or its promise is rejected with,
   * becomes an `error` event of the client.
   */
  on<Name extends keyof RoomEvents>(
    name: Name,
    handler: (event: RoomEvents<Body>[Name]) => unknown,
  ): this;

  off<Name extends keyof RoomEvents>(
    name: Name,
    handler: (event: RoomEvents<Body>[Name]) => unknown,
  ): this;

  /** Leave the room for good. Settles as `Imgo.leave` does. */
  leave(): Promise<boolean>;

  /**
   * Publish `body` to the room, whose policy must let its members publish. The session must be in
   * the room.
   * @returns the message's id, when the server has stored the message. Rejects as `Imgo.request`
   *   does, for instance with the code `publish_forbidden` or `too_many_publishes`.
   */
  publish(body: unknown, options?: PublishOptions): Promise<string>;

  /** Read kept messages. The session must be in the room. Rejects as `Imgo.request` does. */
  history(query?: HistoryQuery): Promise<History<Body>>;
}
