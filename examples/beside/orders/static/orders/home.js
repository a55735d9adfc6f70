/** The page: orders and notifications from the shop's API, and what imgo pushes. */
const orders = document.getElementById("orders");
const notifications = document.getElementById("notifications");
const csrfToken = document.querySelector("[name=csrfmiddlewaretoken]").value;

async function call(url, data) {
  const headers = { "Content-Type": "application/json", "X-CSRFToken": csrfToken };
  const options = data && { method: "POST", headers, body: JSON.stringify(data) };
  const response = await fetch(url, options);
  if (!response.ok) throw new Error(`${url} answered ${response.status}`);
  return response.json();
}

function button(text, action) {
  const made = Object.assign(document.createElement("button"), { textContent: text });
  made.addEventListener("click", () => void action());
  return made;
}

/**
 * Show a line of a list. Each has a step that only grows, so what comes late or twice is not shown.
 * @returns the new element, undefined if what is shown is newer
 */
function put(list, id, step, text) {
  const known = list.querySelector(`[data-id="${id}"]`);
  if (step < known?.dataset.step) return undefined;
  const item = document.createElement("li");
  Object.assign(item.dataset, { id, step });
  item.append(text, " ");
  if (known) known.replaceWith(item);
  else list.append(item);
  const newest = [...list.children].sort((one, other) => other.dataset.id - one.dataset.id);
  list.append(...newest);
  return item;
}

function showOrder({ id, article, customer, status, label }) {
  const item = put(orders, id, status, `${id}: ${article} for ${customer}, ${label}`);
  if (item && "desk" in orders.dataset && label !== "Shipped") {
    const advance = () => call(`${orders.dataset.url}${id}/advance/`, { status }).then(showOrder);
    item.append(button("Next step", advance));
  }
}

function showNotification({ id, text, is_read: isRead }) {
  const item = put(notifications, id, Number(isRead), text);
  if (!item || isRead) return;
  item.classList.add("unread");
  const read = async () => {
    await imgo.request({ read: id }); // imgo has stored it, and tells the shop by its webhook
    showNotification({ id, text, is_read: true });
  };
  item.append(button("Mark as read", read));
}

async function refresh(list, show) {
  (await call(list.dataset.url)).results.forEach(show);
}

document.getElementById("place").addEventListener("submit", async (event) => {
  event.preventDefault();
  await call(orders.dataset.url, { article: event.target.elements.article.value });
  await refresh(orders, showOrder);
});

document.addEventListener("imgo:state", ({ detail }) => {
  document.getElementById("state").textContent = detail;
});

// Connected first, then fetched: what happens in between is in both.
document.addEventListener("imgo:open", () => {
  void refresh(orders, showOrder);
  void refresh(notifications, showNotification);
});

document.addEventListener("imgo:message", ({ detail: { body } }) => {
  if (body.type === "notification") showNotification(body);
  void refresh(orders, showOrder);
});
