/**
 * Service worker that shows imgo's notifications, and opens their URL on a click. A site with a
 * worker of its own imports this one there: importScripts("/static/push/imgo-service-worker.js").
 */
/* global self, clients */

self.addEventListener("push", (event) => {
  event.waitUntil(show(event.data));
});

self.addEventListener("notificationclick", (event) => {
  const url = event.notification.data?.imgo?.url;
  if (event.notification.data?.imgo === undefined) return; // of the site's own
  event.notification.close();
  if (url) event.waitUntil(open(new URL(url, self.location.origin)));
});

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
}

/** Focus a page that shows this URL, or open one. */
async function open(url) {
  const pages = await clients.matchAll({ type: "window", includeUncontrolled: true });
  const page = pages.find((one) => one.url === url.href);
  await (page ? page.focus() : clients.openWindow(url));
}
