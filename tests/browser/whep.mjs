// A browser watches by WHEP, with a client of thirty lines of its own.
//
//   drive whep.mjs --url http://127.0.0.1:5081/WebRTCAppEE/whep/stream1 [--browser chromium|firefox] [--seconds 5]
//                  [--codec VP8|H264|VP9|AV1] [--token T] [--loss 5 --delay 25] [--rate 600 --rateSeconds 10]
//
// With --loss, that share (in percent) of the datagrams is lost each way, and the others are --delay milliseconds late.
// With --rate, the path carries that many kbit/s towards the browser, for --rateSeconds after the first frame; with
// --share that part, in percent, of what came in the two seconds before. The event
// `narrow` then says what was seen, and `lifted` how long the picture took to be as high as --height and as fast as
// --fps again, and what it was before.
// The result has what was seen and heard, the status and headers of the answer, and the status of the DELETE.
import { launch, openPage } from "./lib/browser.mjs";
import { emit, lasting, options, run, sleep, until } from "./lib/driver.mjs";
import { candidateOf, lossy, through } from "./lib/lossy.mjs";
import { summary, watch } from "./lib/probe.mjs";
import { serveLocally } from "./lib/static.mjs";

const option = options({
  url: "",
  browser: "chromium",
  seconds: 5,
  codec: "",
  token: "",
  loss: 0,
  rate: 0,
  share: 0,
  rateSeconds: 10,
  height: 0,
  fps: 0,
  delay: 0,
  startDeadline: 20,
  deadline: 300,
});

const PAGE = `<title>WHEP</title><video id="video" autoplay playsinline></video>`;

/** Runs in the page. */
async function start({ url, codec, token }) {
  const peer = new RTCPeerConnection({ bundlePolicy: "max-bundle" });
  const video = document.getElementById("video");
  const stream = new MediaStream();
  video.srcObject = stream;
  peer.ontrack = ({ track }) => stream.addTrack(track);
  peer.addTransceiver("audio", { direction: "recvonly" });
  const picture = peer.addTransceiver("video", { direction: "recvonly" });
  if (codec) {
    const all = RTCRtpReceiver.getCapabilities("video").codecs;
    const wanted = all.filter(({ mimeType }) => mimeType.toLowerCase() === `video/${codec.toLowerCase()}`);
    if (wanted.length === 0) return { failed: `this browser has no ${codec}` };
    picture.setCodecPreferences([...wanted, ...all.filter(({ mimeType }) => /rtx|red|ulpfec/i.test(mimeType))]);
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
  const headers = Object.fromEntries(
    ["location", "etag", "content-type", "link", "retry-after"].map((name) => [name, response.headers.get(name)]),
  );
  const body = await response.text();
  if (response.status !== 201)
    return { failed: `status ${response.status}: ${body.slice(0, 300)}`, status: response.status, headers };
  await peer.setRemoteDescription({ type: "answer", sdp: await window.through(body) });
  const session = headers.location ? new URL(headers.location, response.url).href : undefined;
  window.finish = async () => {
    // Before the connection is closed: the server forgets a session whose peer has said goodbye.
    const gone = session ? await fetch(session, { method: "DELETE", headers: authorization }) : undefined;
    await gone?.text();
    peer.close();
    return gone?.status;
  };
  return { status: response.status, headers, session };
}

await run(option.deadline, async () => {
  const base = await serveLocally({ "/whep": PAGE });
  const browser = await launch(option.browser);
  const { page, complaints } = await openPage(browser);
  let network;
  const rate = { kbps: 0 };
  await page.exposeFunction("through", async (sdp) => {
    const node = candidateOf(sdp);
    if (!node || [option.loss, option.delay, option.rate, option.share].every((value) => value === 0)) return sdp;
    network = await lossy(node, { loss: option.loss, delayMs: option.delay, rate });
    return through(sdp, network);
  });
  await page.goto(`${base}/whep`);
  await page.evaluate(() => window.amsProbe.arm("#video"));
  const answer = await page.evaluate(start, { url: option.url, codec: option.codec, token: option.token });
  if (answer.failed) return { ok: false, why: answer.failed, ...answer, complaints };
  emit("answered", answer);
  const first = await until(
    async () => (await page.evaluate(() => window.amsProbe.sample("#video"))).firstFrameMs,
    option.startDeadline * 1000,
    50,
  );
  if (first === undefined) return { ok: false, why: "no frame was shown", ...answer, complaints };
  emit("playing", { firstFrameMs: first });
  if (option.rate > 0 || option.share > 0) {
    const sample = () => page.evaluate(() => window.amsProbe.sample("#video"));
    const whole = async () => {
      const before = await sample();
      if (before.height < option.height) return undefined;
      if (option.fps === 0) return { height: before.height };
      await sleep(1000);
      const after = await sample();
      const fps = Math.round(((after.presented - before.presented) * 10_000) / (after.at - before.at)) / 10;
      return fps >= option.fps ? { height: after.height, fps } : undefined;
    };
    await until(whole, 15_000);
    const [before] = [await sample(), await sleep(2000)];
    const after = await sample();
    const kbps = ((after.heard.bytes - before.heard.bytes) * 8) / (after.at - before.at);
    rate.kbps = option.rate || (kbps * option.share) / 100;
    const narrow = summary(await watch(page, "#video", lasting(option.rateSeconds)));
    emit("narrow", { ...narrow, kbps: Math.round(kbps), carried: Math.round(rate.kbps) });
    rate.kbps = 0;
    const began = Date.now();
    const back = await until(whole, 20_000);
    emit("lifted", { wholeAfterMs: back ? Date.now() - began : null, ...(back ?? { height: (await sample()).height }) });
  }
  const seen = summary(await watch(page, "#video", lasting(option.seconds)));
  const deleted = await page.evaluate(() => window.finish());
  return { ...seen, ...answer, deleted, network: network?.counts, complaints };
});
