import assert from "node:assert/strict";
import { test } from "node:test";
import { appName, pageParameters, playAddress, socketAddress, streamIdProblem } from "../src/page_address";

test("the application is the first part of the path", () => {
  const rows: [path: string, app: string][] = [
    ["/WebRTCAppEE/", "WebRTCAppEE"],
    ["/live/player.html", "live"],
    ["/live/samples/publish_webrtc.html", "live"],
    ["/", "WebRTCAppEE"],
    ["/player.html", "WebRTCAppEE"],
    ["/samples/publish_webrtc.html", "WebRTCAppEE"],
  ];
  for (const [path, app] of rows) assert.equal(appName(path), app, path);
});

test("the socket has the page's host, its kind of safety, and the target", () => {
  const page = { protocol: "https:", host: "example.org:5443", pathname: "/live/player.html" };
  assert.equal(socketAddress(page, "edge"), "wss://example.org:5443/live/websocket?target=edge");
  assert.equal(
    socketAddress({ protocol: "http:", host: "[::1]:5080", pathname: "/WebRTCAppEE/" }, "origin"),
    "ws://[::1]:5080/WebRTCAppEE/websocket?target=origin",
  );
});

test("the stream comes from id, or else from name", () => {
  const rows: [search: string, id: string | undefined][] = [
    ["?id=a", "a"],
    ["?name=b", "b"],
    ["?id=a&name=b", "a"],
    ["?id=&name=b", "b"],
    ["?id=%20a%20", "a"],
    ["", undefined],
    ["?id", undefined],
  ];
  for (const [search, id] of rows) assert.equal(pageParameters(search).streamId, id, search);
});

test("autoplay is on and mute is off until the address says otherwise", () => {
  assert.deepEqual([pageParameters("").autoplay, pageParameters("").mute], [true, false]);
  assert.deepEqual([pageParameters("?autoplay=false&mute=true").autoplay, pageParameters("?mute").mute], [false, true]);
});

test("a stream name that cannot be used is explained", () => {
  for (const id of ["stream1", "a.b-c_D9"]) assert.equal(streamIdProblem(id), undefined, id);
  for (const id of ["", "a b", "ä", "a/b", "<b>"]) assert.match(streamIdProblem(id) ?? "", /\.$/, id);
});

test("the link to play stays on this host unless told otherwise", () => {
  const rows: [page: string, base: string | undefined, link: string][] = [
    ["http://localhost:5080/live/", undefined, "http://localhost:5080/live/player.html?id=s1"],
    ["http://localhost:5080/live/index.html?id=x#y", undefined, "http://localhost:5080/live/player.html?id=s1"],
    ["http://h/live/samples/publish_webrtc.html", undefined, "http://h/live/player.html?id=s1"],
    ["http://localhost:5080/live/", "http://localhost:5081/live/", "http://localhost:5081/live/player.html?id=s1"],
  ];
  for (const [href, base, link] of rows) assert.equal(playAddress("s1", { href }, base), link, href);
});
