/**
 * Notifications for users who are not connected: the browser's subscription to Web Push, registered
 * under the user's key. A page imports this module itself; imgo.js does not load it.
 */

const ENDED_MAX = 1000;

/** `code`: `unsupported`, `denied`, `refused` (by the server) or `failed` (the browser's service). */
export class NotificationsError extends Error {
  constructor(code, message, options) {
    super(message, options);
    this.name = "NotificationsError";
    this.code = code;
  }
}

/**
 * Ask the user for permission, subscribe, and register the subscription at the server. Browsers ask
 * only in a click's handler. Once the permission is granted, call this on each load of the page:
 * it asks nothing, and renews the registration.
 *
 * `url`: of the client, such as "/sub". `token`: as of `Imgo`; without one, the site's cookie counts.
 * `serviceWorker`: URL of the worker, on the page's own site. `registration`: a registration of the
 * page's own worker instead, which imports ours. `name`: of the device, for people.
 */
export async function enableNotifications(url, options = {}) {
  const { token, serviceWorker, registration, name = "", ...unknown } = options;
  for (const option in unknown) throw new TypeError(`no such option: ${option}`);
  if (!globalThis.Notification || !navigator.serviceWorker || !globalThis.PushManager) {
    throw new NotificationsError("unsupported", "this browser has no Web Push for this page");
  }
  if ((await Notification.requestPermission()) !== "granted") {
    throw new NotificationsError("denied", "the user does not allow notifications");
  }
  const place = placeOf(url);
  const { webpush } = await ask(place);
  const worker = registration ?? (await register(serviceWorker));
  const subscription = await subscribe(worker.pushManager, bytesOf(webpush.public_key));
  const headers = { "Content-Type": "application/json" };
  const text = token?.call ? await token() : token;
  if (text) headers.Authorization = `Bearer ${text}`;
  const body = JSON.stringify({ provider: "webpush", subscription, name });
  const { id } = await ask(place, { method: "POST", headers, body });
  await remember({ place, name, subscription, key: webpush.public_key });
  return { id, subscription, disable: () => subscription.unsubscribe() };
}

/**
 * Close the notifications of this device whose message the page acknowledges, or is told to take
 * back. Call it once for each client; the result ends it. `client`: an `Imgo`, with `ack`.
 */
export function closeNotifications(client) {
  const worker = globalThis.navigator?.serviceWorker;
  if (!worker) return () => {};
  const ended = new Set(); // ids, the oldest first: their notification may come later
  const close = ({ ids }) => {
    for (const id of ids) ended.add(String(id));
    for (const id of ended) {
      if (ended.size <= ENDED_MAX) break;
      ended.delete(id);
    }
    closeShown(worker, new Set(ids.map(String))).catch((error) => console.error(error));
  };
  const shown = ({ data }) => {
    if (ended.has(data?.imgo?.shown)) close({ ids: [data.imgo.shown] });
  };
  const events = ["acknowledged", "read", "retracted"];
  for (const event of events) client.on(event, close);
  worker.addEventListener("message", shown);
  worker.startMessages();
  return () => {
    for (const event of events) client.off(event, close);
    worker.removeEventListener("message", shown);
  };
}

async function closeShown(worker, ids) {
  for (const registration of await worker.getRegistrations()) {
    for (const notification of await registration.getNotifications()) {
      if (ids.has(notification.data?.imgo?.id)) notification.close();
    }
  }
}

/** Keep what the service worker needs when the browser replaces the subscription. */
async function remember(known) {
  try {
    const cache = await caches.open("imgo-notifications");
    await cache.put("/imgo-notifications", new Response(JSON.stringify(known)));
  } catch {} // the page registers the new subscription on its next load
}

/** The path of devices beside that of the client. */
function placeOf(url) {
  const place = new URL(url, location.href);
  place.protocol = place.protocol.replace("ws", "http");
  place.pathname = `${place.pathname.replace(/\/$/, "")}/devices`;
  return place.href;
}

async function ask(place, request) {
  let answer;
  try {
    answer = await fetch(place, { cache: "no-store", ...request });
  } catch (error) {
    throw new NotificationsError("refused", "the server can not be reached", { cause: error });
  }
  const body = await answer.json().catch(() => ({}));
  if (answer.ok) return body;
  throw new NotificationsError("refused", body.detail ?? `the server answered ${answer.status}`);
}

async function register(serviceWorker) {
  const script = serviceWorker ?? new URL("./imgo-service-worker.js", import.meta.url);
  const registration = await navigator.serviceWorker.register(script);
  const worker = registration.installing ?? registration.waiting ?? registration.active;
  // A subscription needs a worker that is active.
  while (worker.state !== "activated") {
    if (worker.state === "redundant") {
      throw new NotificationsError("failed", "the service worker was not installed");
    }
    await new Promise((resolve) => worker.addEventListener("statechange", resolve, { once: true }));
  }
  return registration;
}

async function subscribe(manager, key) {
  try {
    const known = await manager.getSubscription();
    if (known && isSame(known.options.applicationServerKey, key)) return known;
    await known?.unsubscribe(); // it is of another key, whose messages its service would refuse
    return await manager.subscribe({ userVisibleOnly: true, applicationServerKey: key });
  } catch (error) {
    throw new NotificationsError("failed", `no subscription: ${error.message}`, { cause: error });
  }
}

function isSame(buffer, key) {
  const known = new Uint8Array(buffer ?? []);
  return known.length === key.length && known.every((byte, place) => byte === key[place]);
}

function bytesOf(text) {
  const binary = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
  return Uint8Array.from(binary, (sign) => sign.charCodeAt(0));
}
