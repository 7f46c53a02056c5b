// Chromium publishes from the publish page, as a person would.
//
//   drive publish.mjs --url http://127.0.0.1:5080/WebRTCAppEE/ [--stream stream1] [--seconds 0]
//
// Events: `ready` (page open, camera shown), `publishing` (startedMs since the press), `stopped` (Stop Publishing was
// pressed). With --seconds 0 it publishes until standard input is closed. The result has the frames sent, codecs, and
// complaints of the page.
import { ask, launch, openPage } from "./lib/browser.mjs";
import { emit, lasting, options, run, until } from "./lib/driver.mjs";
import { summary, watch } from "./lib/probe.mjs";

const option = options({
  url: "",
  stream: "",
  seconds: 0,
  browser: "chromium",
  deadline: 900,
  startDeadline: 20,
  screenshot: "",
  bitrate: 0,
});

await run(option.deadline, async () => {
  const browser = await launch(option.browser);
  const { page, complaints } = await openPage(browser);
  await page.goto(option.url, { timeout: 30_000 });
  const said = () => ask(page, () => document.querySelector("#notice")?.textContent);
  const ready = await until(
    () => ask(page, () => document.querySelector("#start_publish_button")?.disabled === false),
    20_000,
  );
  if (ready !== true) return { ok: false, why: "Start Publishing stayed disabled", said: await said(), complaints };
  if (option.stream) {
    await page.click("#streamId", { count: 3 });
    await page.type("#streamId", option.stream);
  }
  if (option.bitrate > 0) {
    await page.click("#options");
    await page.click("#maxBandwidthTextBox", { count: 3 });
    await page.type("#maxBandwidthTextBox", String(option.bitrate));
    await page.click("#max_bandwidth_apply");
  }
  emit("ready");
  const pressedAt = Date.now();
  await page.click("#start_publish_button");
  const live = await until(
    () => ask(page, () => document.querySelector("#broadcastingInfo")?.hidden === false),
    option.startDeadline * 1000,
    20,
  );
  const startedMs = Date.now() - pressedAt;
  if (live !== true) {
    return { ok: false, why: "publishing did not start", said: await said(), complaints };
  }
  emit("publishing", { startedMs, playlink: await ask(page, () => document.querySelector("#playlink")?.href) });
  const samples = await watch(page, "#localVideo", lasting(option.seconds));
  if (option.screenshot) await page.screenshot({ path: option.screenshot, fullPage: true });
  const stillLive = await ask(page, () => document.querySelector("#broadcastingInfo")?.hidden === false);
  const lastSaid = await said();
  await page.click("#stop_publish_button");
  emit("stopped");
  const last = samples.at(-1);
  return {
    ok: stillLive === true,
    startedMs,
    stillLive,
    said: lastSaid,
    framesSent: last?.sent.framesSent ?? 0,
    bytesSent: last?.sent.bytes ?? 0,
    audioPacketsSent: last?.sent.audioPackets ?? 0,
    codecs: [...new Set(last?.sent.codecs ?? [])],
    fields: summary(samples).fields,
    complaints,
  };
});
