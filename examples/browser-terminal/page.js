// Puts a terminal on the page and attaches it. Without a form: index.html?server=http://127.0.0.1:7423&exec=ex-...
// A key belongs into the form, never into a URL.
import { Terminal } from "./node_modules/@xterm/xterm/lib/xterm.mjs";
import { Attachment } from "./attachment.js";

const form = document.getElementById("form");
const status = document.getElementById("status");
const terminal = new Terminal({ cols: 80, rows: 24, scrollback: 5000 });
terminal.open(document.getElementById("terminal"));

let attachment;

function attach(event) {
  event?.preventDefault();
  attachment?.detach();
  terminal.reset();
  const { server, exec, key } = Object.fromEntries(new FormData(form));
  attachment = new Attachment({ server, exec, key, terminal, onStatus: (text) => (status.textContent = text) });
  attachment.attach();
  terminal.focus();
}

form.addEventListener("submit", attach);
const wanted = new URLSearchParams(location.search);
if (wanted.has("exec")) {
  for (const name of ["server", "exec"]) form.elements[name].value = wanted.get(name) ?? form.elements[name].value;
  attach();
}
