// Runs inside a page: sees what a viewer sees and hears what a viewer hears. Nothing here changes how the page works.
//
// A picture is judged by its pixels: drawn into a small canvas twice a second, compared with the time before, and
// described by its mean colour in a grid of 4 by 3 fields. Sound is judged by the energy the receiver decoded.

/** Serialised into the page; must not use anything from outside itself. */
export function installProbe() {
  const W = 80;
  const H = 60;
  const FIELDS_X = 4;
  const FIELDS_Y = 3;
  const peers = [];
  const Native = window.RTCPeerConnection;
  if (!Native || window.amsProbe) return;
  window.RTCPeerConnection = new Proxy(Native, {
    construct(target, args) {
      const peer = new target(...args);
      peers.push(peer);
      return peer;
    },
  });

  const videos = new WeakMap();
  const canvas = document.createElement("canvas");
  canvas.width = W;
  canvas.height = H;
  const context = canvas.getContext("2d", { willReadFrequently: true });

  /** Fraction of pixels that changed, and the mean colours of the fields. */
  function look(video) {
    context.drawImage(video, 0, 0, W, H);
    const { data } = context.getImageData(0, 0, W, H);
    const fields = Array.from({ length: FIELDS_X * FIELDS_Y }, () => [0, 0, 0]);
    let changed = 0;
    const before = videos.get(video)?.pixels;
    for (let pixel = 0; pixel < W * H; pixel += 1) {
      const at = pixel * 4;
      const x = Math.floor(((pixel % W) * FIELDS_X) / W);
      const y = Math.floor((Math.floor(pixel / W) * FIELDS_Y) / H);
      const field = fields[y * FIELDS_X + x];
      for (let channel = 0; channel < 3; channel += 1) field[channel] += data[at + channel];
      if (before) {
        const difference =
          Math.abs(data[at] - before[at]) +
          Math.abs(data[at + 1] - before[at + 1]) +
          Math.abs(data[at + 2] - before[at + 2]);
        if (difference > 60) changed += 1;
      }
    }
    const each = (W * H) / fields.length;
    videos.set(video, { ...videos.get(video), pixels: data });
    return { changed: changed / (W * H), fields: fields.map((field) => field.map((sum) => Math.round(sum / each))) };
  }

  window.amsProbe = {
    peers,
    /** Starts the clock of a video at the next press of `button`, or now; the first frame stops it. */
    arm(videoSelector, buttonSelector) {
      const video = document.querySelector(videoSelector);
      const state = { startedAt: undefined, firstFrameMs: undefined, presented: 0, pauses: [] };
      videos.set(video, { state });
      const start = () => {
        state.startedAt ??= performance.now();
      };
      if (buttonSelector)
        document.querySelector(buttonSelector).addEventListener("click", start, { capture: true, once: true });
      else start();
      const frame = (now) => {
        if (state.presented > 0) {
          const gap = now - state.frameAt;
          state.longestGap = Math.max(state.longestGap ?? 0, gap);
          if (gap > 500) state.pauses.push({ until: Date.now(), ms: Math.round(gap) });
        }
        state.frameAt = now;
        state.presented += 1;
        state.firstFrameMs ??= Math.round(now - state.startedAt);
        video.requestVideoFrameCallback(frame);
      };
      video.requestVideoFrameCallback(frame);
    },
    /** Times longer than half a second without a new frame, and when they ended. */
    pauses: (videoSelector) => videos.get(document.querySelector(videoSelector))?.state.pauses ?? [],
    /** What can be seen and heard now. */
    async sample(videoSelector) {
      const video = document.querySelector(videoSelector);
      const state = videos.get(video)?.state ?? {};
      const heard = {
        framesDecoded: 0,
        bytes: 0,
        packetsLost: 0,
        audioEnergy: 0,
        audioPackets: 0,
        freezes: 0,
        codecs: [],
        nackCount: 0,
        pliCount: 0,
        retransmitted: 0,
        heldS: 0,
        emitted: 0,
        playedAt: {},
      };
      const sent = { framesSent: 0, bytes: 0, audioPackets: 0, codecs: [] };
      const states = [];
      for (const peer of peers) {
        if (peer.connectionState === "closed") continue;
        states.push(peer.connectionState);
        const stats = await peer.getStats();
        const codec = (report) => stats.get(report.codecId)?.mimeType;
        stats.forEach((report) => {
          if (report.type === "inbound-rtp") {
            heard.bytes += report.bytesReceived ?? 0;
            heard.packetsLost += report.packetsLost ?? 0;
            heard.retransmitted += report.retransmittedPacketsReceived ?? 0;
            heard.playedAt[report.kind] = report.estimatedPlayoutTimestamp;
            if (report.kind === "video") {
              heard.framesDecoded += report.framesDecoded ?? 0;
              heard.freezes += report.freezeCount ?? 0;
              heard.heldS += report.jitterBufferDelay ?? 0;
              heard.emitted += report.jitterBufferEmittedCount ?? 0;
              heard.nackCount += report.nackCount ?? 0;
              heard.pliCount += report.pliCount ?? 0;
            } else {
              heard.audioEnergy += report.totalAudioEnergy ?? 0;
              heard.audioPackets += report.packetsReceived ?? 0;
            }
            if (codec(report)) heard.codecs.push(codec(report));
          } else if (report.type === "outbound-rtp") {
            sent.bytes += report.bytesSent ?? 0;
            if (report.kind === "video") sent.framesSent += report.framesSent ?? 0;
            else sent.audioPackets += report.packetsSent ?? 0;
            if (codec(report)) sent.codecs.push(codec(report));
          }
        });
      }
      const seen = video && video.videoWidth > 0 && video.readyState >= 2 ? look(video) : undefined;
      const gap = state.longestGap;
      state.longestGap = undefined;
      return {
        at: Math.round(performance.now()),
        firstFrameMs: state.firstFrameMs,
        presented: state.presented ?? 0,
        // Between two frames shown since the last sample.
        longestGapMs: Math.round(gap ?? 0),
        width: video?.videoWidth ?? 0,
        height: video?.videoHeight ?? 0,
        states,
        heard,
        sent,
        picture: seen,
      };
    },
  };
}

/** Twice a second until `over` is settled. */
export async function watch(page, videoSelector, over) {
  const samples = [];
  let done = false;
  void over.then(() => {
    done = true;
  });
  while (!done) {
    const sample = await page.evaluate((selector) => window.amsProbe.sample(selector), videoSelector);
    samples.push(sample);
    await Promise.race([over, new Promise((resolve) => setTimeout(resolve, 500))]);
  }
  return samples;
}

/** What a watched time amounts to. `longestStillS` is how long nothing moved in the picture, to the
 * half second; `longestGapMs` the longest time between two frames shown. */
export function summary(samples) {
  const first = samples[0];
  // Statistics go with the connection: those of the last moment with one count.
  const last = samples.findLast(({ states }) => states.length > 0) ?? samples.at(-1);
  if (!first || !last) return { framesDecoded: 0 };
  const seconds = (last.at - first.at) / 1000 || 1;
  const pictures = samples.map(({ picture }) => picture).filter((picture) => picture !== undefined);
  const moved = pictures.slice(1).filter(({ changed }) => changed > 0.002).length;
  let longestStill = 0;
  let still = 0;
  for (const { changed } of pictures.slice(1)) {
    still = changed > 0.002 ? 0 : still + 1;
    longestStill = Math.max(longestStill, still);
  }
  const fields = pictures.at(-1)?.fields ?? [];
  return {
    seconds: Math.round(seconds * 10) / 10,
    firstFrameMs: last.firstFrameMs,
    width: last.width,
    height: last.height,
    framesDecoded: last.heard.framesDecoded,
    framesPresented: last.presented,
    fps: Math.round(((last.heard.framesDecoded - first.heard.framesDecoded) / seconds) * 10) / 10,
    pictures: pictures.length,
    moved,
    longestStillS: longestStill / 2,
    longestGapMs: Math.max(0, ...samples.slice(1).map(({ longestGapMs }) => longestGapMs)),
    audioEnergy: last.heard.audioEnergy - first.heard.audioEnergy,
    audioPackets: last.heard.audioPackets,
    bytes: last.heard.bytes,
    packetsLost: last.heard.packetsLost,
    freezes: last.heard.freezes,
    nackCount: last.heard.nackCount,
    pliCount: last.heard.pliCount,
    retransmitted: last.heard.retransmitted,
    // How long pictures were held before they were shown.
    heldMs: Math.round(((last.heard.heldS - first.heard.heldS) * 1000) / (last.heard.emitted - first.heard.emitted || 1)),
    // Where the browser says it (Chromium): how far the picture is ahead of the sound, by the publisher's clock.
    pictureAheadMs:
      last.heard.playedAt.video && last.heard.playedAt.audio
        ? Math.round(last.heard.playedAt.video - last.heard.playedAt.audio)
        : undefined,
    codecs: [...new Set(last.heard.codecs)],
    fields,
    looksLikeFakeCamera: looksLikeFakeCamera(fields),
    looksLikePattern: looksLikePattern(fields),
  };
}

/** Chromium's fake camera: a green ground in every corner of the picture. */
export function looksLikeFakeCamera(fields) {
  if (fields.length !== 12) return false;
  const green = fields.filter(([r, g, b]) => g > 60 && g > r + 30 && g > b + 30).length;
  return green >= 8;
}

/** The pattern of the Python publishers: red, green, blue and yellow corners. */
export function looksLikePattern(fields) {
  if (fields.length !== 12) return false;
  const [red, green, blue, yellow] = [fields[0], fields[3], fields[8], fields[11]];
  const over = (a, b) => a > b + 40;
  return (
    over(red[0], red[1]) &&
    over(red[0], red[2]) &&
    over(green[1], green[0]) &&
    over(green[1], green[2]) &&
    over(blue[2], blue[0]) &&
    over(blue[2], blue[1]) &&
    over(yellow[0], yellow[2]) &&
    over(yellow[1], yellow[2])
  );
}
