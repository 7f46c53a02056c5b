// A browser plays from the player page, as a person would.
//
//   drive play.mjs --url http://127.0.0.1:5081/WebRTCAppEE/player.html [--stream stream1] [--browser chromium|firefox]
//                  [--seconds 10] [--page player|play]
//
// Events: `ready`, `pressed`, `said` (each sentence of the page), `playing` (firstFrameMs from press to first frame
// shown). With --seconds 0 it plays until standard input is closed. The result sums up what was seen and heard.
// --page play is for the embedded player, which starts by itself.
import { ask, launch, openPage } from "./lib/browser.mjs";
import { emit, lasting, options, run, sleep, until } from "./lib/driver.mjs";
import { summary, watch } from "./lib/probe.mjs";

const option = options({
  url: "",
  stream: "",
  browser: "chromium",
  seconds: 10,
  page: "player",
  startDeadline: 20,
  deadline: 900,
  screenshot: "",
});
const VIDEO = option.page === "play" ? "#video-player" : "#remoteVideo";
const SAID = option.page === "play" ? "#video_info p" : "#notice .notice-text";

await run(option.deadline, async () => {
  const browser = await launch(option.browser);
  const { page, complaints } = await openPage(browser);
  await page.goto(option.url, { timeout: 30_000 });
  await page.waitForSelector(VIDEO, { timeout: 20_000 });

  // Every sentence the page says, in order.
  const sentences = [];
  let over = false;
  const listening = (async () => {
    while (!over) {
      const said = await ask(page, (selector) => document.querySelector(selector)?.textContent, SAID);
      if (typeof said === "string" && said !== sentences.at(-1)) {
        sentences.push(said);
        emit("said", { said });
      }
      await sleep(100);
    }
  })();

  try {
    if (option.page === "player") {
      if (option.stream) {
        await page.click("#streamName", { count: 3 });
        await page.type("#streamName", option.stream);
      }
      await page.evaluate((video) => window.amsProbe.arm(video, "#start_play_button"), VIDEO);
      emit("ready");
      await page.click("#start_play_button");
    } else {
      await page.evaluate((video) => window.amsProbe.arm(video), VIDEO);
      emit("ready");
    }
    emit("pressed");
    const first = await until(
      async () => {
        const sample = await page.evaluate((video) => window.amsProbe.sample(video), VIDEO);
        return sample.firstFrameMs === undefined ? undefined : sample;
      },
      option.startDeadline * 1000,
      50,
    );
    if (!first) return { ok: false, why: "no frame was shown", sentences, complaints };
    emit("playing", { firstFrameMs: first.firstFrameMs });
    const samples = await watch(page, VIDEO, lasting(option.seconds));
    if (option.screenshot) await page.screenshot({ path: option.screenshot, fullPage: true });
    const shown = await ask(page, () =>
      Object.fromEntries(
        ["latest_bit_rate", "frame_decoded", "frame_width", "frame_height"].map((id) => [
          id,
          document.getElementById(id)?.textContent,
        ]),
      ),
    );
    if (option.page === "player") await page.click("#stop_play_button").catch(() => undefined);
    return { ...summary(samples), shown, sentences: [...sentences], complaints };
  } finally {
    over = true;
    await listening;
  }
});
