// Chromium publishes its fake camera by WHIP, with a client of forty lines of its own; in several layers if asked.
//
//   drive whip.mjs --url http://127.0.0.1:5080/WebRTCAppEE/whip/stream1 [--codec VP8|H264|VP9|AV1] [--simulcast 3]
//                  [--width 1280 --height 720 --fps 15] [--seconds 5] [--token T] [--loss 5 --delay 25]
//                  [--scalability L1T3 --bitrate 1000000]
//
// Events: `answered`, `connected`, and once with --simulcast `layers`, when every layer sends frames. With --seconds 0
// it publishes until standard input is closed. The result has the frames sent by each layer, and the status of the
// DELETE. Layers are named q, h and f, from a quarter of the width to all of it. --loss and --delay as in whep.mjs.
// --scalability names the temporal and spatial layers inside the one encoding, --bitrate is the most it takes.
import { launch, openPage } from "./lib/browser.mjs";
import { emit, lasting, options, run, until } from "./lib/driver.mjs";
import { candidateOf, lossy, through } from "./lib/lossy.mjs";
import { serveLocally } from "./lib/static.mjs";

const option = options({
  url: "",
  codec: "",
  simulcast: 0,
  scalability: "",
  bitrate: 1_000_000,
  width: 640,
  height: 480,
  fps: 20,
  seconds: 5,
  token: "",
  loss: 0,
  delay: 0,
  deadline: 300,
});

const PAGE = `<title>WHIP</title><video id="video" autoplay muted playsinline></video>`;

/** Runs in the page. */
async function start({ url, codec, simulcast, scalability, bitrate, width, height, fps, token }) {
  const camera = await navigator.mediaDevices.getUserMedia({ audio: true, video: { width, height, frameRate: fps } });
  document.getElementById("video").srcObject = camera;
  const peer = new RTCPeerConnection({ bundlePolicy: "max-bundle" });
  const layers = [
    { rid: "q", scaleResolutionDownBy: 4, maxBitrate: 150_000 },
    { rid: "h", scaleResolutionDownBy: 2, maxBitrate: 400_000 },
    { rid: "f", scaleResolutionDownBy: 1, maxBitrate: 1_000_000 },
  ];
  peer.addTransceiver(camera.getAudioTracks()[0], { direction: "sendonly", streams: [camera] });
  const picture = peer.addTransceiver(camera.getVideoTracks()[0], {
    direction: "sendonly",
    streams: [camera],
    ...(simulcast > 0 ? { sendEncodings: layers.slice(-simulcast) } : {}),
    ...(scalability ? { sendEncodings: [{ scalabilityMode: scalability, maxBitrate: bitrate }] } : {}),
  });
  if (scalability) {
    // The same picture and rate from the beginning: the layers inside are what is looked at.
    const parameters = picture.sender.getParameters();
    await picture.sender.setParameters({ ...parameters, degradationPreference: "maintain-resolution" });
  }
  if (codec) {
    const all = RTCRtpSender.getCapabilities("video").codecs;
    const wanted = all.filter(({ mimeType }) => mimeType.toLowerCase() === `video/${codec.toLowerCase()}`);
    if (wanted.length === 0) return { failed: `this browser has no ${codec}` };
    picture.setCodecPreferences([...wanted, ...all.filter(({ mimeType }) => /rtx/i.test(mimeType))]);
  }
  await peer.setLocalDescription(await peer.createOffer());
  await new Promise((resolve) => {
    const check = () => peer.iceGatheringState === "complete" && resolve();
    peer.onicegatheringstatechange = check;
    setTimeout(resolve, 1000);
    check();
  });
  const authorization = token ? { authorization: `Bearer ${token}` } : {};
  const response = await fetch(url, {
    method: "POST",
    headers: { "content-type": "application/sdp", ...authorization },
    body: peer.localDescription.sdp,
  });
  const headers = Object.fromEntries(["location", "etag", "link"].map((name) => [name, response.headers.get(name)]));
  const body = await response.text();
  if (response.status !== 201)
    return { failed: `status ${response.status}: ${body.slice(0, 300)}`, status: response.status, headers };
  await peer.setRemoteDescription({ type: "answer", sdp: await window.through(body) });
  const session = new URL(headers.location, response.url).href;
  window.state = () => peer.connectionState;
  window.sent = async () => {
    const stats = await peer.getStats();
    const found = [];
    stats.forEach((report) => {
      if (report.type === "outbound-rtp" && report.kind === "video")
        found.push({
          rid: report.rid,
          frames: report.framesSent ?? 0,
          width: report.frameWidth,
          scalability: report.scalabilityMode,
          codec: stats.get(report.codecId)?.mimeType,
          nacks: report.nackCount ?? 0,
          plis: report.pliCount ?? 0,
          target: report.targetBitrate,
        });
    });
    return found;
  };
  window.finish = async () => {
    const gone = await fetch(session, { method: "DELETE", headers: authorization });
    await gone.text();
    peer.close();
    return gone.status;
  };
  return { status: response.status, headers, rids: [...body.matchAll(/^a=rid:(\S+) recv/gm)].map(([, rid]) => rid) };
}

await run(option.deadline, async () => {
  const base = await serveLocally({ "/whip": PAGE });
  const browser = await launch("chromium");
  const { page, complaints } = await openPage(browser);
  let network;
  await page.exposeFunction("through", async (sdp) => {
    const node = candidateOf(sdp);
    if (!node || (option.loss === 0 && option.delay === 0)) return sdp;
    network = await lossy(node, { loss: option.loss, delayMs: option.delay });
    return through(sdp, network);
  });
  await page.goto(`${base}/whip`);
  const answer = await page.evaluate(start, option);
  if (answer.failed) return { ok: false, why: answer.failed, ...answer, complaints };
  emit("answered", answer);
  const connected = await until(() => page.evaluate(() => window.state() === "connected"), 15_000, 50);
  if (!connected) return { ok: false, why: "not connected after 15 s", ...answer, complaints };
  emit("connected");
  if (option.simulcast > 0) {
    const all = await until(async () => {
      const sent = await page.evaluate(() => window.sent());
      return sent.length >= option.simulcast && sent.every(({ frames }) => frames > 5) ? sent : undefined;
    }, 20_000);
    if (!all) return { ok: false, why: "not every layer was sent", sent: await page.evaluate(() => window.sent()) };
    emit("layers", { sent: all });
  }
  await lasting(option.seconds);
  const sent = await page.evaluate(() => window.sent());
  const state = await page.evaluate(() => window.state());
  const deleted = await page.evaluate(() => window.finish());
  return { ok: state === "connected", ...answer, state, sent, deleted, network: network?.counts, complaints };
});
