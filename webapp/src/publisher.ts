// Publishing one stream: asks, offers, watches over the connection, and starts again when something breaks.
//
// It owns the socket and the peer connection; the tracks belong to the page, which may exchange them at any time.

import { Observable } from "./observable";
import { Peer } from "./peer";
import { aboutTheSocket, LOCAL, notice, serverSentence, type Notice, type Sentence } from "./sentences";
import { Signalling, type PublishRequest, type ServerError, type ServerMessage } from "./signalling";
import { publisherStats, RateMeter, type PublisherStats } from "./stats";

const ANSWER_DEADLINE_MS = 5000;
/** From the answer to `publish_started`; the server itself gives up after 10 s. */
const MEDIA_DEADLINE_MS = 15_000;
const SHAKY_DEADLINE_MS = 6000;
const RESTART_FIRST_MS = 500;
const RESTART_MAX_MS = 5000;
/** After a cut the server may hold the name for the session that is gone; it lets go within this time. */
const NAME_HELD_MS = 25_000;

export type PublisherPhase = "stopped" | "connecting" | "publishing" | "interrupted";

export interface PublisherState {
  readonly phase: PublisherPhase;
  readonly notice: Notice;
}

export type Naming = Omit<PublishRequest, "video" | "audio">;

export const READY: Notice = { tone: "idle", text: "Ready to publish." };

export class Publisher {
  readonly state = new Observable<PublisherState>({ phase: "stopped", notice: READY });
  readonly stats = new Observable<PublisherStats | undefined>(undefined);
  /** Whether the socket is open: before that, starting makes no sense. */
  readonly reachable = new Observable(false);

  readonly #onText: (text: string) => void;
  readonly #signalling: Signalling;
  #naming: Naming | undefined;
  #media: MediaStream | undefined;
  #maxKbps: number;
  #servers: RTCIceServer[] = [];
  #peer: Peer | undefined;
  #meter = new RateMeter();
  #restarts = 0;
  #interruptedAt: number | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #shakyTimer: ReturnType<typeof setTimeout> | undefined;
  #watch: ReturnType<typeof setInterval> | undefined;

  constructor(address: string, maxKbps: number, onText: (text: string) => void = () => undefined) {
    this.#maxKbps = maxKbps;
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

  /** Opens the socket, so that Start Publishing need not wait for it. */
  prepare(): void {
    this.#signalling.open();
  }

  start(naming: Naming, media: MediaStream): void {
    if (this.#wanted) return;
    if (typeof RTCPeerConnection === "undefined") {
      this.state.set({ phase: "stopped", notice: notice("bad", LOCAL.noWebRtc) });
      return;
    }
    this.#naming = naming;
    this.#media = media;
    this.#restarts = 0;
    this.#interruptedAt = undefined;
    this.#set("connecting", { tone: "busy", text: "Connecting to the server…" });
    if (this.#signalling.isOpen) this.#ask();
    else this.#signalling.open();
  }

  stop(): void {
    if (this.#wanted) this.#end({ tone: "idle", text: "Stopped. Nothing is being published." });
  }

  /** Puts other tracks in the place of the ones being sent; viewers notice nothing but the picture. */
  async exchange(media: MediaStream): Promise<void> {
    this.#media = media;
    const peer = this.#peer;
    if (!peer) return;
    const audio = media.getAudioTracks()[0] ?? null;
    const video = media.getVideoTracks()[0] ?? null;
    for (const transceiver of peer.connection.getTransceivers()) {
      const track = transceiver.receiver.track.kind === "audio" ? audio : video;
      await transceiver.sender.replaceTrack(track);
    }
  }

  async limit(maxKbps: number): Promise<void> {
    this.#maxKbps = maxKbps;
    for (const sender of this.#peer?.connection.getSenders() ?? []) {
      if (sender.track?.kind !== "video") continue;
      const parameters = sender.getParameters();
      for (const encoding of parameters.encodings) encoding.maxBitrate = maxKbps * 1000;
      await sender.setParameters(parameters).catch(() => undefined);
    }
  }

  send(text: string): boolean {
    return this.#peer?.send(text) ?? false;
  }

  #set(phase: PublisherPhase, said: Notice): void {
    this.state.set({ phase, notice: said });
  }

  #after(ms: number, action: () => void): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(action, ms);
  }

  #opened(): void {
    this.reachable.set(true);
    this.#signalling.askIceServers();
    if (this.#wanted) this.#ask();
    else if (aboutTheSocket(this.state.value.notice)) this.#set("stopped", READY);
  }

  #lost(everOpened: boolean): void {
    this.reachable.set(false);
    clearTimeout(this.#timer);
    const said = notice(everOpened ? "warn" : "bad", everOpened ? LOCAL.connectionLost : LOCAL.unreachable);
    if (!this.#wanted) {
      this.#set("stopped", said);
      return;
    }
    this.#interruptedAt ??= performance.now();
    this.#closePeer();
    this.#set("interrupted", said);
  }

  #ask(): void {
    if (!this.#naming || !this.#media) return;
    this.#signalling.publish({
      ...this.#naming,
      video: this.#media.getVideoTracks().length > 0,
      audio: this.#media.getAudioTracks().length > 0,
    });
    this.#after(ANSWER_DEADLINE_MS, () => this.#restart(LOCAL.noAnswer));
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
    if (message.streamId !== this.#naming?.streamId) return;
    switch (message.kind) {
      case "start":
        void this.#offer();
        break;
      case "description":
        if (message.type === "answer") void this.#answered(message.sdp);
        break;
      case "candidate":
        this.#peer?.candidate(message.label, message.candidate);
        break;
      case "stop":
        this.#end({ tone: "warn", text: "The server ended the stream." });
        break;
      case "notification":
        this.#notified(message.definition);
        break;
      case "stream-information":
        break;
    }
  }

  #error(error: ServerError): void {
    const streamId = this.#naming?.streamId ?? "";
    if (error.streamId !== undefined && error.streamId !== streamId) return;
    const sentence = serverSentence(error, streamId, "publisher");
    const held =
      error.definition === "streamIdInUse" &&
      this.#interruptedAt !== undefined &&
      performance.now() - this.#interruptedAt < NAME_HELD_MS;
    if (held) {
      this.#set("interrupted", {
        tone: "warn",
        text: "The server still holds the connection that broke.",
        advice: "Publishing goes on as soon as it lets go, within half a minute.",
      });
      this.#after(2000, () => this.#ask());
    } else if (sentence.retryAfterS !== undefined) {
      this.#closePeer();
      this.#set("interrupted", notice("warn", sentence));
      this.#after(sentence.retryAfterS * 1000, () => this.#ask());
    } else {
      this.#end(notice("bad", sentence), { refused: true });
    }
  }

  #notified(definition: string): void {
    switch (definition) {
      case "publish_started":
      case "session_restored":
        clearTimeout(this.#timer);
        this.#restarts = 0;
        this.#interruptedAt = undefined;
        this.#publishing();
        break;
      case "publish_finished":
        // An echo of our own stop has no peer any more.
        if (this.#peer) {
          this.#end({
            tone: "warn",
            text: "The server ended the stream.",
            advice: "Press Start Publishing to begin again.",
          });
        }
        break;
      case "server_will_stop":
        this.#interruptedAt ??= performance.now();
        this.#set("interrupted", notice("warn", LOCAL.serverStopping));
        this.#signalling.reopen();
        break;
    }
  }

  async #offer(): Promise<void> {
    const naming = this.#naming;
    const media = this.#media;
    if (!naming || !media) return;
    this.#closePeer();
    const peer: Peer = new Peer(naming.streamId, this.#servers, this.#signalling, {
      changed: (state) => {
        if (peer === this.#peer) this.#ice(state);
      },
      text: (text) => this.#onText(text),
    });
    this.#peer = peer;
    this.#meter = new RateMeter();
    for (const track of media.getTracks()) {
      peer.connection.addTransceiver(track, { direction: "sendonly", streams: [media] });
    }
    peer.openChannel();
    this.#set(this.#interruptedAt === undefined ? "connecting" : "interrupted", {
      tone: "busy",
      text: "Connecting the media…",
    });
    try {
      await peer.offer();
    } catch {
      if (peer === this.#peer) this.#end(notice("bad", LOCAL.badDescription));
    }
  }

  async #answered(sdp: string): Promise<void> {
    const peer = this.#peer;
    if (!peer) return;
    try {
      await peer.accept(sdp);
    } catch {
      if (peer === this.#peer) this.#end(notice("bad", LOCAL.badDescription));
      return;
    }
    if (peer !== this.#peer) return;
    await this.limit(this.#maxKbps);
    if (peer === this.#peer && this.state.value.phase !== "publishing") {
      this.#after(MEDIA_DEADLINE_MS, () => this.#restart(LOCAL.iceFailed));
    }
    this.#watch = setInterval(() => void this.#observe(peer), 1000);
  }

  #ice(state: RTCIceConnectionState): void {
    clearTimeout(this.#shakyTimer);
    if (state === "failed") this.#restart(LOCAL.iceFailed);
    else if (state === "disconnected") {
      this.#set("interrupted", notice("warn", LOCAL.iceShaky));
      this.#shakyTimer = setTimeout(() => this.#restart(LOCAL.iceShaky), SHAKY_DEADLINE_MS);
    } else if (
      (state === "connected" || state === "completed") &&
      this.state.value.phase === "interrupted" &&
      this.#interruptedAt === undefined
    ) {
      this.#publishing();
    }
  }

  #publishing(): void {
    this.#set("publishing", { tone: "good", text: `Publishing ${this.#naming?.streamId ?? ""}.` });
  }

  async #observe(peer: Peer): Promise<void> {
    try {
      const stats = await publisherStats(peer.connection, this.#meter);
      if (peer === this.#peer) this.stats.set(stats);
    } catch {
      // The connection was closed meanwhile.
    }
  }

  #restart(why: Sentence): void {
    if (!this.#wanted || !this.#naming) return;
    const pause = Math.min(RESTART_FIRST_MS * 2 ** this.#restarts, RESTART_MAX_MS);
    this.#restarts += 1;
    this.#interruptedAt ??= performance.now();
    this.#closePeer();
    this.#set("interrupted", notice("warn", why));
    this.#signalling.stop(this.#naming.streamId);
    this.#after(pause, () => {
      if (this.#signalling.isOpen) this.#ask();
    });
  }

  #closePeer(): void {
    clearInterval(this.#watch);
    clearTimeout(this.#shakyTimer);
    const peer = this.#peer;
    this.#peer = undefined;
    peer?.close();
    this.stats.set(undefined);
  }

  #end(said: Notice, { refused = false } = {}): void {
    clearTimeout(this.#timer);
    this.#closePeer();
    if (this.#naming && !refused) this.#signalling.stop(this.#naming.streamId);
    this.#set("stopped", said);
  }
}
