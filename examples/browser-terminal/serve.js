// Serves this folder: node serve.js [PORT]. MODULES: where node_modules is, if it is not here.
import { createReadStream } from "node:fs";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";

const here = fileURLToPath(new URL(".", import.meta.url));
const modules = process.env.MODULES ?? join(here, "node_modules");
const types = { ".html": "text/html", ".js": "text/javascript", ".mjs": "text/javascript", ".css": "text/css" };

export function serve(port) {
  const server = createServer((request, response) => {
    const path = normalize(new URL(request.url, "http://x").pathname);
    const file = path.startsWith("/node_modules/")
      ? join(modules, path.slice("/node_modules".length))
      : join(here, path === "/" ? "index.html" : path);
    createReadStream(file)
      .on("open", () => response.writeHead(200, { "Content-Type": `${types[extname(file)] ?? "text/plain"}; charset=utf-8` }))
      .on("error", () => response.writeHead(404).end())
      .pipe(response);
  });
  return new Promise((resolve) => server.listen(port, "127.0.0.1", () => resolve(server)));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const port = Number(process.argv[2] ?? 8000);
  await serve(port);
  console.log(`http://127.0.0.1:${port}/`);
}
