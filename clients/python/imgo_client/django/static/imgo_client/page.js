/**
 * The client on a page, as {% imgo %} of imgo_client.django asks for it: connected, as
 * `globalThis.imgo`, and for other scripts as events of the document: `imgo:message` and so on.
 */
const { imgoScript, imgoSocket, imgoTokenUrl, imgoName, imgoRooms, imgoShare, imgoTransports } =
  document.querySelector("script[data-imgo-token-url]").dataset;

/** @returns {boolean} false when a listener has called preventDefault() */
function dispatch(name, detail) {
  return document.dispatchEvent(new CustomEvent(`imgo:${name}`, { detail, cancelable: true }));
}

/** Fetch a token for one connection. Once nobody is signed in, the client stays closed. */
async function fetchToken() {
  const response = await fetch(imgoTokenUrl, { method: "POST", credentials: "same-origin" });
  if (response.ok) return (await response.json()).token;
  if (response.status === 401 || response.status === 403) client.close();
  throw new Error(`no token: ${imgoTokenUrl} answered ${response.status}`);
}

const { Imgo } = await import(imgoScript);
const client = new Imgo(imgoSocket, {
  token: fetchToken,
  rooms: JSON.parse(imgoRooms),
  name: imgoName,
  share: imgoShare,
  transports: imgoTransports?.split(","),
});
for (const name of ["state", "open", "message", "close"]) {
  client.on(name, (detail) => void dispatch(name, detail));
}
client.on("error", (error) => {
  if (dispatch("error", error)) console.error(error);
});
globalThis.imgo = client;
client.connect();
