// Serves the drivers' own pages and the unmodified SDK from node_modules, on a free port of this machine.
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import { atEnd } from "./driver.mjs";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const TYPES = {
  ".html": "text/html",
  ".js": "text/javascript",
  ".mjs": "text/javascript",
  ".wasm": "application/wasm",
};
const ICON = '<link rel="icon" href="data:," />';

/** `pages` maps a path to HTML; everything else comes from tests/browser. Returns the address without a slash. */
export async function serveLocally(pages) {
  const server = createServer((request, response) => {
    const { pathname } = new URL(request.url ?? "/", "http://localhost");
    const page = pages[pathname];
    if (page !== undefined) {
      response
        .writeHead(200, { "content-type": "text/html" })
        .end(`<!doctype html><meta charset="utf-8">${ICON}${page}`);
      return;
    }
    readFile(join(ROOT, normalize(pathname))).then(
      (bytes) =>
        response.writeHead(200, { "content-type": TYPES[extname(pathname)] ?? "application/octet-stream" }).end(bytes),
      () => response.writeHead(404).end(),
    );
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  atEnd(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${server.address().port}`;
}
