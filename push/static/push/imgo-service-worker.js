/**
 * Service worker that shows imgo's notifications, and opens their URL on a click. A site with a
 * worker of its own imports this one there: importScripts("/static/push/imgo-service-worker.js").
 */
/* global self, clients, caches */

self.addEventListener("push", (event) => {
  event.waitUntil(show(event.data));
});

self.addEventListener("notificationclick", (event) => {
  const url = event.notification.data?.imgo?.url;
  if (event.notification.data?.imgo === undefined) return; // of the site's own
  event.notification.close();
  if (url) event.waitUntil(open(new URL(url, self.location.origin)));
});

// The browser replaces a subscription when it expires, or its service asks for that.
self.addEventListener("pushsubscriptionchange", (event) => {
  event.waitUntil(replace(event.oldSubscription, event.newSubscription));
});

/** Register a new subscription: the old one proves to the server whose device it is. */
async function replace(old, given) {
  const cache = await caches.open("imgo-notifications");
  const known = await (await cache.match("/imgo-notifications"))?.json();
  if (!known) return; // of the site's own
  const binary = atob(known.key.replaceAll("-", "+").replaceAll("_", "/"));
  const applicationServerKey = Uint8Array.from(binary, (sign) => sign.charCodeAt(0));
  const options = { userVisibleOnly: true, applicationServerKey };
  const subscription = given ?? (await self.registration.pushManager.subscribe(options));
  const replaces = known.subscription ?? old;
  const { place, name } = known;
  const answer = await fetch(place, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ provider: "webpush", subscription, name, replaces }),
  });
  if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
  const now = JSON.stringify({ ...known, subscription });
  await cache.put("/imgo-notifications", new Response(now));
}

/** Browsers want a notification for each message, so one that can not be read is shown too. */
async function show(message) {
  let content = {};
  try {
    content = message.json();
  } catch {} // not ours
  const { id, title = "Notification", body, icon, tag, url, data } = content;
  await self.registration.showNotification(title, {
    body,
    icon,
    // The same message again replaces the one that is shown.
    tag: tag ?? `imgo-${id}`,
    data: { imgo: { id, url, data } },
  });
  // A page may have acknowledged the message before it came here.
  for (const page of await clients.matchAll({ type: "window", includeUncontrolled: true })) {
    page.postMessage({ imgo: { shown: id } });
  }
}

/** Focus a page that shows this URL, or open one. */
async function open(url) {
  const pages = await clients.matchAll({ type: "window", includeUncontrolled: true });
  const page = pages.find((one) => one.url === url.href);
  await (page ? page.focus() : clients.openWindow(url));
}
