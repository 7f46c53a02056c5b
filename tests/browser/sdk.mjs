// The unmodified AMS JavaScript SDK, told what to do by a scenario.
//
//   drive sdk.mjs --scenario '{"steps":[…]}'      (or --scenario @FILE)
//
// A scenario is a list of steps, done in order; the first that fails ends it:
//   {"do":"adaptor","name":"p","url":"ws://…","play":false,"ice":"ask"|"own","browser":"chromium","options":{…}}
//                                     a WebRTCAdaptor in a page of its own; `ice: ask` makes it send getIceServerConfig
//   {"do":"call","on":"p","method":"publish","args":["stream1"]}
//   {"do":"wait","on":"p","info":"publish_started"|"error":"streamIdInUse","within":10,"since":"call"|"begin"}
//                                     `afterMs` counts from the last call on "on", or on "from":"…" of another adaptor
//   {"do":"never","on":"p","info"|"error":"…","for":3}        that callback does not come within these seconds
//   {"do":"frames","on":"v","min":60,"within":20}              so many more decoded frames
//   {"do":"mark","on":"v"}                                     what is waited for from here on comes after this
//   {"do":"resumes","on":"v","from":"p","info":"…","within":10} a pause of the picture ends after the mark; `afterMs` counts
//                                     from that callback of the other adaptor
//   {"do":"watch","on":"v","seconds":5}                        sums up what is seen and heard
//   {"do":"sleep","seconds":1}      {"do":"close","on":"v"}    the page goes away without a word
//   {"do":"webplayer","name":"w","base":"http://…/WebRTCAppEE/","stream":"stream1"}
//                                     the unmodified @antmedia/web_player instead, without sound
// Each step is also printed as an event. The result has every step and every callback with its time.
import { readFileSync } from "node:fs";
import { launch, openPage } from "./lib/browser.mjs";
import { emit, options, run, sleep, until } from "./lib/driver.mjs";
import { summary, watch } from "./lib/probe.mjs";
import { serveLocally } from "./lib/static.mjs";

const option = options({ scenario: "", deadline: 300 });

const ADAPTOR_PAGE = `
<title>SDK</title>
<video id="localVideo" autoplay muted playsinline></video>
<video id="remoteVideo" autoplay playsinline></video>
<script type="module">
  import { WebRTCAdaptor } from "/node_modules/@antmedia/webrtc_adaptor/dist/es/index.js";
  const plain = (value) => { try { return JSON.parse(JSON.stringify(value ?? null)); } catch { return String(value); } };
  window.amsLog = [];
  const record = (kind) => (name, detail) => window.amsLog.push({
    at: Date.now(), kind, name,
    // Statistics and streams are large; their arrival is what counts.
    detail: name === "updated_stats" || name === "newTrackAvailable" ? undefined : plain(detail),
  });
  window.make = ({ url, play, ice, options }) => {
    window.adaptor = new WebRTCAdaptor({
      websocket_url: url,
      isPlayMode: play === true,
      mediaConstraints: play ? { video: false, audio: false } : { video: true, audio: true },
      ...(play ? { remoteVideoId: "remoteVideo" } : { localVideoId: "localVideo" }),
      ...(ice === "own" ? { peerconnection_config: { iceServers: [] } } : {}),
      callback: record("info"),
      callbackError: record("error"),
      ...options,
    });
  };
  window.ready = true;
</script>`;

const PLAYER_PAGE = `
<title>Web player</title>
<div id="video_container" style="width:640px;height:480px"></div>
<div id="video_info"></div>
<script type="module">
  import { WebPlayer } from "/node_modules/@antmedia/web_player/dist/es/web_player.js";
  window.amsLog = [];
  window.make = ({ base, stream, options }) => {
    window.player = new WebPlayer(
      {
        streamId: stream,
        httpBaseURL: base,
        playOrder: ["webrtc"],
        mute: true,
        autoPlay: true,
        ...options,
      },
      document.getElementById("video_container"),
      document.getElementById("video_info"),
    );
    return window.player.initialize().then(() => window.player.play()).then(() => undefined, (error) => String(error));
  };
  window.ready = true;
</script>`;

const scenario = JSON.parse(
  option.scenario.startsWith?.("@") ? readFileSync(option.scenario.slice(1), "utf8") : option.scenario,
);

await run(option.deadline, async () => {
  const base = await serveLocally({ "/adaptor": ADAPTOR_PAGE, "/player": PLAYER_PAGE });
  const browsers = new Map();
  const actors = new Map();
  const done = [];

  const actor = (name) => {
    const found = actors.get(name);
    if (!found) throw new Error(`no adaptor named ${name}`);
    return found;
  };
  const log = ({ page }) => page.evaluate(() => window.amsLog);
  const open = async (step, path) => {
    const kind = step.browser ?? "chromium";
    if (!browsers.has(kind)) browsers.set(kind, await launch(kind));
    const opened = await openPage(browsers.get(kind));
    await opened.page.goto(base + path);
    await opened.page.waitForFunction("window.ready === true", { timeout: 20_000 });
    const one = { ...opened, video: step.play ? "#remoteVideo" : "#localVideo", since: Date.now() };
    actors.set(step.name, one);
    return one;
  };
  const find = async (one, step) => {
    const kind = step.error ? "error" : "info";
    const since = step.since === "begin" ? 0 : one.since;
    return (await log(one)).find((entry) => entry.kind === kind && entry.name === step[kind] && entry.at >= since);
  };

  const steps = {
    async adaptor(step) {
      const one = await open(step, "/adaptor");
      await one.page.evaluate((details) => window.make(details), {
        url: step.url,
        play: step.play,
        ice: step.ice ?? "ask",
        options: step.options,
      });
      await one.page.evaluate((video) => window.amsProbe.arm(video), one.video);
    },
    async webplayer(step) {
      const one = await open({ ...step, play: true }, "/player");
      one.video = "video";
      const refused = await one.page.evaluate((details) => window.make(details), {
        base: step.base,
        stream: step.stream,
        options: step.options,
      });
      return refused ? { note: refused } : {};
    },
    async call({ on, method, args = [] }) {
      const one = actor(on);
      one.since = await one.page.evaluate(
        async (name, list) => {
          const at = Date.now();
          await window.adaptor[name](...list);
          return at;
        },
        method,
        args,
      );
    },
    async wait(step) {
      const one = actor(step.on);
      const found = await until(() => find(one, step), (step.within ?? 10) * 1000, 50);
      if (!found) return { ok: false, why: `no ${step.error ?? step.info} within ${step.within ?? 10} s` };
      return { afterMs: found.at - (step.from ? actor(step.from).since : one.since), detail: found.detail };
    },
    async never(step) {
      const one = actor(step.on);
      const found = await until(() => find(one, step), (step.for ?? 3) * 1000, 50);
      return found ? { ok: false, why: `${step.error ?? step.info} came`, detail: found.detail } : {};
    },
    async frames({ on, min = 30, within = 20 }) {
      const one = actor(on);
      const sample = () => one.page.evaluate((video) => window.amsProbe.sample(video), one.video);
      const before = (await sample()).heard.framesDecoded;
      const after = await until(async () => {
        const { heard } = await sample();
        return heard.framesDecoded - before >= min ? heard.framesDecoded : undefined;
      }, within * 1000);
      return after
        ? { framesDecoded: after }
        : {
            ok: false,
            why: `fewer than ${min} frames in ${within} s`,
            framesDecoded: (await sample()).heard.framesDecoded,
          };
    },
    async mark({ on }) {
      actor(on).since = Date.now();
    },
    async resumes(step) {
      const one = actor(step.on);
      const word = await find(actor(step.from), step);
      // One that ended before the word was another's.
      const ended = (pauses) => pauses.find(({ until: at }) => at >= Math.max(one.since, word.at - 300));
      const pause = await until(
        async () => ended(await one.page.evaluate((video) => window.amsProbe.pauses(video), one.video)),
        (step.within ?? 10) * 1000,
        50,
      );
      if (!pause) return { ok: false, why: `no picture again within ${step.within ?? 10} s` };
      return { afterMs: pause.until - word.at, pausedMs: pause.ms };
    },
    async watch({ on, seconds = 5 }) {
      const one = actor(on);
      return summary(await watch(one.page, one.video, sleep(seconds * 1000)));
    },
    async sleep({ seconds = 1 }) {
      await sleep(seconds * 1000);
    },
    async close({ on }) {
      const one = actor(on);
      await one.page.close();
      actors.delete(on);
    },
  };

  let ok = true;
  for (const step of scenario.steps) {
    let outcome;
    try {
      if (!Object.hasOwn(steps, step.do)) throw new Error(`no step named ${step.do}`);
      outcome = { ok: true, ...(await steps[step.do](step)) };
    } catch (error) {
      outcome = { ok: false, why: error.message };
    }
    const { do: kind, on, name, info, error, method } = step;
    done.push({ do: kind, on: on ?? name, of: info ?? error ?? method, ...outcome });
    emit("step", done.at(-1));
    if (!outcome.ok) {
      ok = false;
      break;
    }
  }
  const callbacks = {};
  const complaints = {};
  for (const [name, one] of actors) {
    callbacks[name] = (await log(one).catch(() => []))
      .filter(({ name: what }) => !["updated_stats", "pong"].includes(what))
      .slice(-100);
    complaints[name] = one.complaints;
  }
  const failed = done.find((step) => !step.ok);
  return {
    ok,
    why: failed ? `step ${done.length} (${failed.do} ${failed.of ?? ""}): ${failed.why}` : undefined,
    steps: done,
    callbacks,
    complaints,
  };
});
