/** Orders, each with how far it is. Steps go forward alone: what is behind the shown one is old. */
const list = document.getElementById("orders");
const template = document.getElementById("order");
const shown = new Map(); // id → { item, step }

function show({ id, article, customer, step, status }) {
  const item = shown.get(id)?.item ?? template.content.firstElementChild.cloneNode(true);
  if (step <= shown.get(id)?.step) return;
  const texts = { article, customer: `for ${customer}`, status };
  for (const [name, text] of Object.entries(texts)) {
    item.querySelector(`[data-part=${name}]`).textContent = text;
  }
  const bar = item.querySelector("progress");
  bar.value = step;
  const form = item.querySelector("form"); // staff's
  if (form) {
    form.elements.order.value = id;
    form.elements.step.value = step;
    form.hidden = step === bar.max;
  }
  if (!shown.has(id)) {
    item.dataset.id = id;
    const older = [...list.children].find((other) => Number(other.dataset.id) < id);
    list.insertBefore(item, older ?? null);
  }
  shown.set(id, { item, step });
}

// Connected first, then asked: what happens in between is in both.
document.addEventListener("imgo:open", async () => {
  const answer = await fetch(list.dataset.url);
  (await answer.json()).orders.forEach(show);
});

document.addEventListener("imgo:message", ({ detail: { body } }) => {
  if (body.type === "order") show(body);
});
