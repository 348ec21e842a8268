// Tries the page in a real Chromium: node try.js SERVER EXEC PORT. The exec is a shell whose output so far has asked its
// terminal several questions. Prints what became of it as one line of JSON.
import { createRequire } from "node:module";
import { join } from "node:path";
import { serve } from "./serve.js";

const [, , server, exec, port] = process.argv;
const require = createRequire(join(process.env.MODULES ?? import.meta.dirname ?? ".", "x.js"));
const { chromium } = require("playwright-core");

const files = await serve(Number(port));
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync"],
});
try {
  const page = await browser.newPage();
  const sent = [];
  const closed = [];
  page.on("websocket", (socket) => {
    socket.on("framesent", ({ payload }) => sent.push(Buffer.from(payload).toString("latin1")));
    socket.on("close", () => closed.push(socket.url()));
  });
  const address = `http://127.0.0.1:${port}/?${new URLSearchParams({ server, exec })}`;
  const status = (text) =>
    page.waitForFunction((text) => document.getElementById("status").textContent.startsWith(text), text, { timeout: 60_000 });
  // A first visit, and a reload: each replays the questions.
  const visits = [];
  for (let visit = 0; visit < 2; visit++) {
    await page.goto(address);
    await status("live");
    await page.waitForTimeout(500);
    visits.push(sent.splice(0));
  }
  // What is asked now is answered by this terminal, and what is typed gets there.
  const type = async (text) => {
    await page.keyboard.type(text);
    await page.keyboard.press("Enter");
  };
  await type("printf '\\033[6n'; IFS= read -rs -d R at; echo \"café at=${at#*[}=\"");
  await page.waitForFunction(() => /café at=\d+;\d+=/.test(document.querySelector(".xterm-rows").textContent), null, {
    timeout: 60_000,
  });
  const live = sent.splice(0);
  await type("exit 7");
  await status("ended: exited 7");
  console.log(JSON.stringify({ visits, live, screen: await page.locator(".xterm-rows").innerText() }));
} finally {
  await browser.close();
  files.close();
}
