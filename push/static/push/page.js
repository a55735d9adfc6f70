/**
 * The client on a page, as {% imgo %} asks for it: connected, as `globalThis.imgo`, and for scripts
 * that are no modules as events of the document: `imgo:message` and so on.
 */
import { Imgo } from "./imgo.js";

const { imgoUrl, imgoRooms, imgoToken, imgoName, imgoShare, imgoTransports } =
  document.querySelector("script[data-imgo-url]").dataset;

/** @returns {boolean} false when a listener has called preventDefault() */
function dispatch(name, detail) {
  return document.dispatchEvent(new CustomEvent(`imgo:${name}`, { detail, cancelable: true }));
}

const client = new Imgo(imgoUrl, {
  token: imgoToken,
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
