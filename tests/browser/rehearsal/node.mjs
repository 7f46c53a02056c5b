// A stand-in for a node, so that pages and drivers can be tried without one. It serves the built pages and joins one
// publisher to one viewer directly: the publisher's offer is handed on as the server's, the viewer's answer comes back.
//
//   node tests/browser/rehearsal/node.mjs PORT
import { createReadStream, existsSync, statSync } from "node:fs";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import { WebSocketServer } from "ws";

const DIST = fileURLToPath(new URL("../../../webapp/dist", import.meta.url));
const APP = "/WebRTCAppEE/";
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml" };

export function serve(port) {
  const server = createServer((request, response) => {
    const { pathname } = new URL(request.url ?? "/", "http://localhost");
    const name = normalize(pathname.slice(APP.length - 1)).replace(/\/$/, "/index.html");
    const file = join(DIST, name);
    if (!pathname.startsWith(APP) || !existsSync(file) || !statSync(file).isFile()) {
      response.writeHead(404).end();
      return;
    }
    response.writeHead(200, {
      "content-type": TYPES[extname(file)] ?? "application/octet-stream",
      "content-security-policy": "default-src 'self'",
    });
    createReadStream(file).pipe(response);
  });

  /** One publisher and one viewer per stream. */
  const streams = new Map();
  const stream = (id) => {
    if (!streams.has(id)) streams.set(id, { waiting: new Set() });
    return streams.get(id);
  };
  const say = (socket, command, fields) =>
    socket?.readyState === 1 && socket.send(JSON.stringify({ command, ...fields }));
  const note = (socket, definition, streamId) =>
    say(socket, "notification", { definition, streamId, subscriberId: null });

  function leave(socket, id) {
    const it = stream(id);
    it.waiting.delete(socket);
    if (it.publisher === socket) {
      note(socket, "publish_finished", id);
      note(it.viewer, "play_finished", id);
      Object.assign(it, { publisher: undefined, viewer: undefined, offer: undefined, early: undefined });
    } else if (it.viewer === socket) {
      note(socket, "play_finished", id);
      it.viewer = undefined;
    }
  }

  const sockets = new WebSocketServer({ server });
  /** Cuts every socket, as a broken network would. */
  server.cut = () => sockets.clients.forEach((socket) => socket.terminate());
  sockets.on("connection", (socket) => {
    socket.on("close", () => [...streams.keys()].forEach((id) => leave(socket, id)));
    socket.on("message", (text) => {
      const message = JSON.parse(String(text));
      const id = message.streamId;
      const it = id ? stream(id) : undefined;
      switch (message.command) {
        case "ping":
          say(socket, "pong", {});
          break;
        case "getIceServerConfig":
          say(socket, "iceServerConfig", { stunServerUri: "" });
          break;
        case "publish":
          if (!/^[\w.-]+$/.test(id)) say(socket, "error", { definition: "invalidStreamName", streamId: id });
          else if (it.publisher) say(socket, "error", { definition: "streamIdInUse", streamId: id });
          else {
            Object.assign(it, { publisher: socket, early: [] });
            say(socket, "start", { streamId: id, subscriberId: null });
          }
          break;
        case "play":
          if (!it.offer) {
            it.waiting.add(socket);
            say(socket, "error", {
              definition: "no_stream_exist",
              error_code: "404",
              streamId: id,
              information: "stream_not_exist_or_not_streaming",
            });
          } else {
            it.viewer = socket;
            say(socket, "takeConfiguration", {
              streamId: id,
              type: "offer",
              sdp: it.offer,
              idMapping: { 0: id, 1: id, 2: id },
            });
            for (const early of it.early.splice(0)) socket.send(early);
          }
          break;
        case "takeConfiguration":
          if (socket === it.publisher) {
            it.offer = message.sdp;
            for (const waiting of it.waiting) note(waiting, "streaming_started", id);
            it.waiting.clear();
          } else {
            it.publisher?.send(String(text));
            note(it.publisher, "publish_started", id);
            note(socket, "play_started", id);
          }
          break;
        case "takeCandidate":
          if (socket !== it.publisher) it.publisher?.send(String(text));
          else if (it.viewer) it.viewer.send(String(text));
          else it.early.push(String(text));
          break;
        case "getStreamInfo":
          say(socket, "streamInformation", {
            streamId: id,
            streamInfo: [{ streamWidth: 640, streamHeight: 480, videoBitrate: 1_200_000, audioBitrate: 64_000 }],
          });
          break;
        case "stop":
          leave(socket, id);
          break;
      }
    });
  });
  return new Promise((resolve) => server.listen(port, "127.0.0.1", () => resolve(server)));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await serve(Number(process.argv[2] ?? 5080));
