/** The bell: the count of this user, the same in all tabs, and the news. */
const bell = document.getElementById("bell");
const form = document.getElementById("read");
const news = document.getElementById("news");
let messages = 0;
let newsTimer;

function show({ unread, latest }) {
  document.getElementById("unread").textContent = unread;
  bell.dataset.unread = unread > 0;
  document.getElementById("latest").replaceChildren(
    ...latest.map((text) => {
      const item = document.createElement("li");
      item.textContent = text; // never as HTML: people may have typed it
      return item;
    }),
  );
}

function announce(text) {
  news.textContent = text;
  news.hidden = false;
  clearTimeout(newsTimer);
  newsTimer = setTimeout(() => (news.hidden = true), 5000); // ms
}

// A message of the time before this tab was connected may have gone to another tab. So ask, and
// ask again when a message came meanwhile: which of the two is newer cannot be known.
async function refresh() {
  const before = messages;
  const state = await (await fetch(bell.dataset.url)).json();
  if (messages === before) show(state);
  else await refresh();
}

document.addEventListener("imgo:open", refresh);

document.addEventListener("imgo:message", ({ detail: { body } }) => {
  if (body.type !== "bell") return;
  messages++;
  show(body);
  if (body.news) announce(body.news);
});

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  await fetch(form.action, { method: "POST", body: new FormData(form) }); // all tabs will hear
});

// Devices get what no open tab has taken in time. What a tab takes is closed on this device.
const device = document.getElementById("device");

device?.addEventListener("click", async () => {
  const { enableNotifications } = await import(device.dataset.module);
  try {
    await enableNotifications("/sub");
    announce("This device is notified while no tab is open.");
  } catch (error) {
    announce(error.message);
  }
});

if (device) {
  document.addEventListener("imgo:open", async () => {
    const { closeNotifications, enableNotifications } = await import(device.dataset.module);
    closeNotifications(globalThis.imgo);
    if (Notification.permission === "granted") await enableNotifications("/sub"); // renews it
  }, { once: true });
}
