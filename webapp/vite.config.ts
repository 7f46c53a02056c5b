// Builds every page into dist/, which the server embeds.
//
// Addresses inside are relative, so that one build serves under any application name. Nothing is inlined: pages work
// under the policy `default-src 'self'`.
import { resolve } from "node:path";
import { defineConfig } from "vite";

const page = (name: string): string => resolve(import.meta.dirname, name);

export default defineConfig({
  base: "./",
  build: {
    target: "es2022",
    modulePreload: { polyfill: false },
    assetsInlineLimit: 0,
    reportCompressedSize: false,
    rollupOptions: {
      input: {
        index: page("index.html"),
        player: page("player.html"),
        play: page("play.html"),
        publish_webrtc: page("samples/publish_webrtc.html"),
      },
    },
  },
  server: {
    // `npm run dev` beside `ams-node demo`.
    proxy: { "/WebRTCAppEE/websocket": { target: "ws://127.0.0.1:5080", ws: true } },
  },
});
