/**
 * Notifications for users who are not connected: the browser's subscription to Web Push, registered
 * under the user's key. A page imports this module itself; imgo.js does not load it.
 */

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
  return { id, subscription, disable: () => subscription.unsubscribe() };
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
