/** The room: what was said before, what is said now, and the form to say something. */
const list = document.getElementById("lines");
const form = document.getElementById("say");
const trouble = document.getElementById("trouble");

function element(tag, text) {
  const made = document.createElement(tag);
  made.textContent = text; // never as HTML: it is what people type
  return made;
}

function show({ id, author, text, at }) {
  const items = [...list.children];
  if (items.some((item) => Number(item.dataset.id) === id)) return;
  const isAtEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 50; // pixels
  const item = document.createElement("li");
  item.dataset.id = id;
  const time = element("time", new Date(at).toLocaleTimeString([], { timeStyle: "short" }));
  time.dateTime = at;
  item.append(element("strong", author), " ", time, element("p", text));
  list.insertBefore(item, items.find((later) => Number(later.dataset.id) > id) ?? null);
  if (isAtEnd) list.scrollTop = list.scrollHeight;
}

// The room first, then the past: what is said in between is in both, and shown once. The same
// when the connection comes back, because a room keeps nothing for those who are away.
document.addEventListener("imgo:open", async () => {
  const answer = await fetch(list.dataset.url);
  (await answer.json()).lines.forEach(show);
});

document.addEventListener("imgo:message", ({ detail: { body } }) => {
  if (body.type === "line") show(body);
});

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const data = new FormData(form);
  form.reset();
  form.elements.text.focus();
  const answer = await fetch(form.action, { method: "POST", body: data }).catch(() => undefined);
  const isSaid = answer?.status === 204;
  trouble.textContent = isSaid ? "" : "That could not be said. Try again, or sign in again.";
  if (!isSaid) form.elements.text.value ||= data.get("text");
});
