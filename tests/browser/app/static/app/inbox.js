/** What the tab has shown, it keeps: after a reload everything stands there as often as it came. */
const list = document.getElementById("messages");
const shown = JSON.parse(sessionStorage.getItem("shown") ?? "[]");

function show(body) {
  list.append(Object.assign(document.createElement("li"), { textContent: body }));
}

shown.forEach(show);
document.addEventListener("imgo:message", ({ detail: { body } }) => {
  shown.push(body);
  sessionStorage.setItem("shown", JSON.stringify(shown));
  show(body);
});
document.addEventListener("imgo:state", ({ detail: state }) => {
  document.getElementById("state").textContent = state;
});
