/** The room: who is there, what was said, what is said now, and the form to say something. */
const list = document.getElementById("lines");
const here = document.getElementById("here");
const form = document.getElementById("say");
const trouble = document.getElementById("trouble");
const LINES = 50; // that the page begins with
const TYPING = 1000; // the op of "somebody is typing"
const PAUSE = 2000; // ms from one of these to the next
const typing = new Map(); // author → the timer until they have stopped
let saidTyping = 0; // ms

function element(tag, text) {
  const made = document.createElement(tag);
  made.textContent = text; // never as HTML: it is what people type
  return made;
}

function show({ author, text, at }) {
  const isAtEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 50; // pixels
  const item = document.createElement("li");
  const time = element("time", new Date(at).toLocaleTimeString([], { timeStyle: "short" }));
  time.dateTime = at;
  item.append(element("strong", author), " ", time, element("p", text));
  list.append(item);
  stopTyping(author);
  if (isAtEnd) list.scrollTop = list.scrollHeight;
}

// The room remembers: at first it sends the last lines, and after an absence what was missed.
const room = globalThis.imgo.room(list.dataset.room, { rewind: LINES });
room.on("message", ({ op, from, body }) => (op === TYPING ? showTyping(from) : show(body)));

// Who is there. The list keeps itself right, also after the browser was away.
room.presence.on("update", (presence) => {
  const names = [...presence].map(({ key }) => key).sort();
  const items = presence.truncated ? [`${presence.count} people`] : names;
  here.replaceChildren(...items.map((item) => element("li", item)));
});
room.presence.on("leave", ({ key }) => stopTyping(key));

// Browsers publish who is typing, to those who are there. The room does not remember it.
form.elements.text.addEventListener("input", () => {
  if (Date.now() - saidTyping < PAUSE) return;
  saidTyping = Date.now();
  room.publish({}, { op: TYPING, store: "never", echo: false }).catch(() => {}); // the next will do
});

function showTyping(author) {
  clearTimeout(typing.get(author));
  typing.set(author, setTimeout(stopTyping, 2 * PAUSE, author));
  tellTyping();
}

function stopTyping(author) {
  clearTimeout(typing.get(author));
  if (typing.delete(author)) tellTyping();
}

function tellTyping() {
  const names = [...typing.keys()].join(", ");
  document.getElementById("typing").textContent = names && `Typing: ${names}`;
}

// Away for longer than the room remembers: begin anew.
async function beginAnew() {
  const { messages } = await room.history({ limit: LINES });
  list.replaceChildren();
  for (const { body } of messages.reverse()) show(body);
}
room.on("recovered", ({ recovered }) => recovered || beginAnew());
room.on("gap", beginAnew);

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const data = new FormData(form);
  form.reset();
  saidTyping = 0;
  form.elements.text.focus();
  const answer = await fetch(form.action, { method: "POST", body: data }).catch(() => undefined);
  const isSaid = answer?.status === 204;
  trouble.textContent = isSaid ? "" : "That could not be said. Try again, or sign in again.";
  if (!isSaid) form.elements.text.value ||= data.get("text");
});
