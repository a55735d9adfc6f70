/** Whether this page is connected, in a word. */
document.addEventListener("imgo:state", ({ detail: state }) => {
  document.getElementById("state").textContent = state;
});
