import type { Imgo } from "./imgo.js";

export interface NotificationOptions {
  /** As of `Imgo`. Without a token the server tries the Django session. */
  token?: string | null | undefined | (() => string | null | undefined | Promise<string | null | undefined>);
  /** URL of the service worker, on the page's own site. Default: `imgo-service-worker.js` beside this. */
  serviceWorker?: string | URL;
  /** A registration of the page's own worker instead, which imports ours. */
  registration?: ServiceWorkerRegistration;
  /** Of the device, for people, up to 100 characters. Default: "". */
  name?: string;
}

export interface EnabledNotifications {
  /** The device's id at the server. */
  readonly id: string;
  readonly subscription: PushSubscription;
  /** Unsubscribe. The server forgets the device when it next notifies it. */
  disable(): Promise<boolean>;
}

/**
 * `code`: `unsupported`, `denied` (by the user), `refused` (by the server) or `failed` (the
 * browser's push service).
 */
export class NotificationsError extends Error {
  constructor(code: string, message: string, options?: ErrorOptions);
  readonly code: string;
}

/**
 * Close the notifications of this device whose message the page acknowledges, or is told to take
 * back, also if they are shown later. Call it once for each client, which must have `ack`.
 * @returns a function that ends it
 */
export function closeNotifications(client: Imgo<any>): () => void;

/**
 * Ask the user for permission in a click's handler, subscribe to Web Push, and register the
 * subscription under the user's key. Once the permission is granted, call it on each load of the
 * page: it asks nothing, and renews the registration.
 * @param url of the client, such as "/sub"
 * @throws NotificationsError; TypeError for options that can not be
 */
export function enableNotifications(
  url: string | URL,
  options?: NotificationOptions,
): Promise<EnabledNotifications>;
