// Watching one stream: asks, waits, negotiates, watches over the picture, and starts again when something breaks.
//
// It owns the socket and the peer connection. It draws nothing: the page reads `state`, `stats` and `media`.

import { Observable } from "./observable";
import { Peer } from "./peer";
import { aboutTheSocket, LOCAL, notice, serverSentence, type Notice, type Sentence } from "./sentences";
import { Signalling, type Credentials, type ServerError, type ServerMessage } from "./signalling";
import { RateMeter, viewerStats, type ViewerStats } from "./stats";

/** From `play` to the server's offer. */
const OFFER_DEADLINE_MS = 5000;
/** From the offer to the first frame. */
const MEDIA_LATE_MS = 4000;
const MEDIA_DEADLINE_MS = 12_000;
/** Silence of the media: first said, then acted upon. The server itself keeps viewers of an interrupted stream 10 s. */
const SILENCE_LATE_MS = 1500;
const SILENCE_DEADLINE_MS = 15_000;
/** A waiting viewer is called when the stream starts; asking again now and then covers a call that got lost. */
const WAITING_ASK_MS = 15_000;
const RESTART_FIRST_MS = 500;
const RESTART_MAX_MS = 5000;

export type ViewerPhase = "stopped" | "connecting" | "waiting" | "negotiating" | "playing" | "interrupted";

export interface ViewerState {
  readonly phase: ViewerPhase;
  readonly notice: Notice;
  /** Milliseconds from Start Playing to the first frame. */
  readonly firstFrameMs?: number | undefined;
}

export interface Measurement {
  readonly targetBitrate: number;
  readonly needed: number;
}

export const READY: Notice = { tone: "idle", text: "Ready to play." };

export class Viewer {
  readonly state = new Observable<ViewerState>({ phase: "stopped", notice: READY });
  readonly stats = new Observable<ViewerStats | undefined>(undefined);
  readonly media = new Observable<MediaStream | undefined>(undefined);
  /** Heights the server can send, ascending. */
  readonly heights = new Observable<readonly number[]>([]);
  readonly weakNetwork = new Observable(false);
  /** The rendition has just changed; the page pauses for a moment. */
  readonly renditionChangedAt = new Observable(0);

  readonly #credentials: Credentials;
  readonly #onText: (text: string) => void;
  readonly #signalling: Signalling;
  #streamId = "";
  /** Set by `play`: the next offer begins a new connection. Otherwise an offer changes the tracks of this one. */
  #asked = false;
  #servers: RTCIceServer[] = [];
  #peer: Peer | undefined;
  #meter = new RateMeter();
  #restarts = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #watch: ReturnType<typeof setInterval> | undefined;
  #startedAt = 0;
  #offeredAt = 0;
  #bytes = 0;
  #bytesAt = 0;

  constructor(address: string, credentials: Credentials, onText: (text: string) => void = () => undefined) {
    this.#credentials = credentials;
    this.#onText = onText;
    this.#signalling = new Signalling(address, {
      opened: () => this.#opened(),
      lost: (everOpened) => this.#lost(everOpened),
      message: (message) => this.#message(message),
    });
  }

  get #wanted(): boolean {
    return this.state.value.phase !== "stopped";
  }

  start(streamId: string): void {
    if (this.#wanted) return;
    if (typeof RTCPeerConnection === "undefined") {
      this.state.set({ phase: "stopped", notice: notice("bad", LOCAL.noWebRtc) });
      return;
    }
    this.#streamId = streamId;
    this.#restarts = 0;
    this.#startedAt = performance.now();
    this.state.set({ phase: "connecting", notice: { tone: "busy", text: "Connecting to the server…" } });
    if (this.#signalling.isOpen) this.#ask();
    else this.#signalling.open();
  }

  stop(): void {
    if (!this.#wanted) return;
    this.#end({ tone: "idle", text: "Stopped." });
  }

  /** Opens the socket ahead of time, so that Start Playing need not wait for it. */
  prepare(): void {
    this.#signalling.open();
  }

  /** The page saw the first frame, or heard the first sound of a stream without a picture. */
  firstFrame(): void {
    if (!this.#peer || !["negotiating", "interrupted"].includes(this.state.value.phase)) return;
    this.#restarts = 0;
    this.#playing();
  }

  send(text: string): boolean {
    return this.#peer?.send(text) ?? false;
  }

  forceQuality(height: number): void {
    this.#signalling.forceQuality(this.#streamId, height);
  }

  #set(phase: ViewerPhase, said: Notice): void {
    this.state.set({ phase, notice: said, firstFrameMs: this.state.value.firstFrameMs });
  }

  #after(ms: number, action: () => void): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(action, ms);
  }

  #opened(): void {
    this.#signalling.askIceServers();
    if (this.#wanted) this.#ask();
    else if (aboutTheSocket(this.state.value.notice)) this.state.set({ phase: "stopped", notice: READY });
  }

  #lost(everOpened: boolean): void {
    clearTimeout(this.#timer);
    const sentence = everOpened ? LOCAL.connectionLost : LOCAL.unreachable;
    if (this.#wanted) {
      // The last picture stays on the screen until the next connection has a newer one.
      this.#set(this.#peer ? "interrupted" : "connecting", notice(everOpened ? "warn" : "bad", sentence));
    } else {
      this.state.set({ phase: "stopped", notice: notice("warn", sentence) });
    }
  }

  #ask(): void {
    this.#asked = true;
    this.#signalling.play({ ...this.#credentials, streamId: this.#streamId });
    this.#after(OFFER_DEADLINE_MS, () => this.#restart(LOCAL.noAnswer));
  }

  #message(message: ServerMessage): void {
    if (message.kind === "ice-servers") {
      this.#servers = message.servers;
      return;
    }
    if (!this.#wanted) return;
    if (message.kind === "error") {
      this.#error(message.error);
      return;
    }
    if (message.streamId !== this.#streamId) return;
    switch (message.kind) {
      case "description":
        if (message.type === "offer") void this.#offered(message.sdp);
        break;
      case "candidate":
        this.#peer?.candidate(message.label, message.candidate);
        break;
      case "stop":
        this.#end({ tone: "idle", text: "The server ended playing." });
        break;
      case "stream-information":
        this.heights.set(
          [...new Set(message.renditions.map((item) => item.streamHeight))].filter((h) => h > 0).sort((a, b) => a - b),
        );
        break;
      case "notification":
        this.#notified(message.definition, message.fields);
        break;
      case "start":
        break;
    }
  }

  #error(error: ServerError): void {
    if (error.streamId !== undefined && error.streamId !== this.#streamId) return;
    if (error.definition === "no_stream_exist") {
      this.#wait(error.information);
      return;
    }
    const sentence = serverSentence(error, this.#streamId, "viewer");
    if (sentence.retryAfterS === undefined) {
      this.#end(notice("bad", sentence), { refused: true });
      return;
    }
    this.#closePeer();
    this.#set("waiting", notice("warn", sentence));
    this.#after(sentence.retryAfterS * 1000, () => this.#ask());
  }

  /** The stream is not there yet. `reason` says whether the server will call when it starts. */
  #wait(reason: string | undefined): void {
    const ended = this.#peer !== undefined || this.state.value.firstFrameMs !== undefined;
    this.#closePeer();
    if (reason === "webrtc_not_enabled") {
      this.#end({
        tone: "bad",
        text: `“${this.#streamId}” is live but cannot be watched by WebRTC here.`,
        advice: "Ask the operator to enable WebRTC for it.",
      });
      return;
    }
    this.#set("waiting", {
      tone: "busy",
      text: `Waiting for ${this.#streamId} to start${ended ? " again" : ""}. It will play by itself.`,
    });
    this.#after(reason === "stream_not_exist_or_not_streaming" ? WAITING_ASK_MS : 3000, () => this.#ask());
  }

  #notified(definition: string, fields: Readonly<Record<string, unknown>>): void {
    switch (definition) {
      case "streaming_started":
        if (this.state.value.phase === "waiting") {
          this.#startedAt = performance.now();
          this.#set("negotiating", { tone: "busy", text: `${this.#streamId} has started. Connecting…` });
          this.#ask();
        }
        break;
      case "streaming_starts_soon":
        this.#set("waiting", { tone: "busy", text: `${this.#streamId} is about to start. It will play by itself.` });
        this.#after(WAITING_ASK_MS, () => this.#ask());
        break;
      case "play_started":
        this.#signalling.askStreamInfo(this.#streamId);
        break;
      case "play_finished":
        // Said for an end by the publisher, and as an echo of our own stop: only the first concerns a peer.
        if (this.#peer) {
          this.#closePeer();
          this.#set("waiting", {
            tone: "busy",
            text: `${this.#streamId} has ended. It will play again when it returns.`,
          });
          this.#after(RESTART_FIRST_MS, () => this.#ask());
        }
        break;
      case "server_will_stop":
        this.#set("interrupted", notice("warn", LOCAL.serverStopping));
        this.#signalling.reopen();
        break;
      case "resolutionChangeInfo":
        this.renditionChangedAt.set(performance.now());
        break;
      case "bitrateMeasurement": {
        const value = (name: string): number => (typeof fields[name] === "number" ? (fields[name] as number) : 0);
        this.weakNetwork.set(value("audioBitrate") + value("videoBitrate") > value("targetBitrate"));
        break;
      }
    }
  }

  async #offered(sdp: string): Promise<void> {
    const peer = this.#asked || !this.#peer ? this.#connect() : this.#peer;
    this.#asked = false;
    try {
      await peer.answer(sdp);
    } catch {
      if (peer === this.#peer) this.#end(notice("bad", LOCAL.badDescription));
    }
  }

  #connect(): Peer {
    this.#closePeer({ keepPicture: true });
    const peer: Peer = new Peer(this.#streamId, this.#servers, this.#signalling, {
      changed: (state) => {
        if (peer === this.#peer) this.#ice(state);
      },
      text: (text) => this.#onText(text),
    });
    const unnamed = new MediaStream();
    peer.connection.ontrack = ({ track, streams }) => {
      if (peer !== this.#peer) return;
      const stream = streams[0] ?? unnamed;
      if (!stream.getTracks().includes(track)) stream.addTrack(track);
      this.media.set(stream);
    };
    this.#peer = peer;
    this.#meter = new RateMeter();
    this.#bytes = 0;
    this.#offeredAt = this.#bytesAt = performance.now();
    clearTimeout(this.#timer);
    if (this.state.value.phase !== "interrupted")
      this.#set("negotiating", { tone: "busy", text: "Connecting the media…" });
    this.#watch = setInterval(() => void this.#observe(peer), 1000);
    return peer;
  }

  #ice(state: RTCIceConnectionState): void {
    if (state === "failed") this.#restart(LOCAL.iceFailed);
    else if (state === "disconnected") {
      this.#set("interrupted", notice("warn", LOCAL.iceShaky));
    } else if ((state === "connected" || state === "completed") && this.state.value.phase === "interrupted") {
      // The silence clock decides whether media really flows again.
      this.#bytesAt = performance.now();
    }
  }

  /** Once a second: what arrived, and whether anything arrived at all. */
  async #observe(peer: Peer): Promise<void> {
    let stats: ViewerStats;
    try {
      stats = await viewerStats(peer.connection, this.#meter);
    } catch {
      return;
    }
    if (peer !== this.#peer) return;
    this.stats.set(stats);
    const now = performance.now();
    const flows = stats.bytes > this.#bytes;
    if (flows) this.#bytesAt = now;
    this.#bytes = stats.bytes;
    const { phase } = this.state.value;
    // A hidden tab draws no frames; the decoder's count tells as well.
    const soundOnly = !this.media.value?.getVideoTracks().length && stats.audioPackets > 0;
    const seen = stats.framesDecoded > 0 || soundOnly;
    if (phase === "negotiating") {
      const late = now - this.#offeredAt;
      if (seen) this.#playing();
      else if (late > MEDIA_DEADLINE_MS) this.#restart(LOCAL.noMediaYet);
      else if (late > MEDIA_LATE_MS) this.#set("negotiating", notice("warn", LOCAL.noMediaYet));
    } else if (phase === "playing" || phase === "interrupted") {
      const silence = now - this.#bytesAt;
      if (silence > SILENCE_DEADLINE_MS) this.#restart(LOCAL.mediaStopped);
      else if (silence > SILENCE_LATE_MS && this.#signalling.isOpen) this.#set("interrupted", notice("warn", LOCAL.mediaStopped));
      else if (phase === "interrupted" && flows && seen && this.#signalling.isOpen) this.#playing();
    }
  }

  #playing(): void {
    const firstFrameMs = this.state.value.firstFrameMs ?? Math.round(performance.now() - this.#startedAt);
    this.state.set({ phase: "playing", firstFrameMs, notice: { tone: "good", text: `Playing ${this.#streamId}.` } });
  }

  /** Gives up this connection and asks for another, a little later each time. */
  #restart(why: Sentence): void {
    if (!this.#wanted) return;
    const pause = Math.min(RESTART_FIRST_MS * 2 ** this.#restarts, RESTART_MAX_MS);
    this.#restarts += 1;
    this.#set("interrupted", notice("warn", why));
    this.#signalling.stop(this.#streamId);
    this.#closePeer({ keepPicture: true });
    this.#after(pause, () => {
      if (this.#signalling.isOpen) this.#ask();
    });
  }

  #closePeer({ keepPicture = false } = {}): void {
    clearInterval(this.#watch);
    const peer = this.#peer;
    this.#peer = undefined;
    peer?.close();
    this.stats.set(undefined);
    this.weakNetwork.set(false);
    if (!keepPicture) {
      this.media.set(undefined);
      this.heights.set([]);
    }
  }

  #end(said: Notice, { refused = false } = {}): void {
    clearTimeout(this.#timer);
    this.#closePeer();
    if (!refused) this.#signalling.stop(this.#streamId);
    this.state.set({ phase: "stopped", notice: said });
  }
}
