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

/** A frame as the server has sent it. */
export interface Frame<Body = unknown> {
  readonly ver: number;
  readonly op: number;
  readonly seq: number;
  /** With `ack` alone. A string: it may be more than a number holds exactly. */
  readonly id?: string;
  readonly body: Body;
}

export interface Message<Body = unknown> {
  /** What was pushed: the value where it was JSON, else a string. */
  readonly body: Body;
  /** 5, or the application's own number from 1000 on. */
  readonly op: number;
  /** The same whenever the message is delivered; undefined without `ack`. */
  readonly id: string | undefined;
  readonly frame: Frame<Body>;
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
  /** The session is open; `body` is that of the auth reply. */
  open: { readonly body: unknown };
  message: Message<Body>;
  /** A session or an attempt has ended. */
  close: Close;
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
  /** A function is asked for each attempt. Without a token the server tries the Django session. */
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
  /** ms between heartbeats; each is up to 10% early. Default: 240,000. */
  heartbeat?: number;
  /** ms for an attempt, the token included, and for an answer. Default: 15,000. */
  timeout?: number;
  /**
   * ms between attempts: drawn between `min` and a ceiling that doubles up to `max`. A session
   * that lasts for `max` starts it anew. Default: 500 and 30,000.
   */
  backoff?: { min?: number; max?: number };
  /** Bytes that the server takes in one frame's body, its MAX_CLIENT_BODY. Default: 1,024. */
  maxBody?: number;
  /** Default: the global one, or where there is none (Node 20) that of `websocket-node.js`. */
  WebSocket?: new (url: string) => WebSocketLike;
  /** Default: Math.random. */
  random?: () => number;
}

/**
 * `code`: `closed` (no session, or it ended before the answer), `timeout`, `too_large`,
 * `protocol` (the server sent no list of frames), or the server's word for a refusal, such as `room_forbidden`.
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
   * @throws TypeError for options that can not be
   */
  constructor(url: string | URL, options?: Options);

  readonly state: State;

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
   */
  connect(): this;

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
}
