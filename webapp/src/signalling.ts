// A client of the AMS WebSocket protocol: one socket, JSON text frames, kept open until told otherwise.
//
// It knows frames and the socket's life. It knows nothing of peer connections, and keeps no stream's state: whoever
// uses it says again what it wants each time the socket opens.

/** How often the server hears from us, so that nothing in between takes the socket for idle. */
const PING_EVERY_MS = 3000;
/** Silence after which the socket counts as dead although nobody closed it. */
const SILENCE_MAX_MS = 10_000;
const OPEN_DEADLINE_MS = 8000;
/** Pauses between attempts: doubling, with a random part so that a thousand viewers do not return at once. */
const RETRY_FIRST_MS = 500;
const RETRY_MAX_MS = 5000;

export interface Credentials {
  readonly token?: string | undefined;
  readonly subscriberId?: string | undefined;
  readonly subscriberCode?: string | undefined;
}

export interface PublishRequest extends Credentials {
  readonly streamId: string;
  readonly streamName?: string | undefined;
  readonly mainTrack?: string | undefined;
  readonly metaData?: string | undefined;
  readonly video: boolean;
  readonly audio: boolean;
}

export interface PlayRequest extends Credentials {
  readonly streamId: string;
}

/** One rendition of a stream, as the server describes it. */
export interface StreamInfo {
  readonly streamWidth: number;
  readonly streamHeight: number;
  readonly videoBitrate: number;
  readonly audioBitrate: number;
}

export interface ServerError {
  readonly definition: string;
  readonly streamId?: string | undefined;
  /** A reason the definition alone does not tell. */
  readonly information?: string | undefined;
}

/** What the server says. Fields are checked before anyone sees them. */
export type ServerMessage =
  | { readonly kind: "start"; readonly streamId: string }
  | { readonly kind: "stop"; readonly streamId: string }
  | { readonly kind: "description"; readonly streamId: string; readonly type: "offer" | "answer"; readonly sdp: string }
  | { readonly kind: "candidate"; readonly streamId: string; readonly label: number; readonly candidate: string }
  | { readonly kind: "ice-servers"; readonly servers: RTCIceServer[] }
  | { readonly kind: "stream-information"; readonly streamId: string; readonly renditions: StreamInfo[] }
  | { readonly kind: "notification"; readonly definition: string; readonly streamId: string; readonly fields: Fields }
  | { readonly kind: "error"; readonly error: ServerError };

export type Fields = Readonly<Record<string, unknown>>;

export interface SignallingEvents {
  /** The socket is open, for the first time or again. */
  opened(): void;
  /** The socket is gone; the next attempt follows by itself. `everOpened` is false while no server was ever reached. */
  lost(everOpened: boolean): void;
  message(message: ServerMessage): void;
}

/** Reads one text frame; undefined for what is not a message to us. */
export function readMessage(text: string): ServerMessage | undefined {
  let fields: Fields;
  try {
    const parsed: unknown = JSON.parse(text);
    if (typeof parsed !== "object" || parsed === null) return undefined;
    fields = parsed as Fields;
  } catch {
    return undefined;
  }
  const string = (name: string): string => (typeof fields[name] === "string" ? (fields[name] as string) : "");
  const optional = (name: string): string | undefined => string(name) || undefined;
  const number = (value: unknown): number => (typeof value === "number" && Number.isFinite(value) ? value : 0);
  const streamId = string("streamId");
  switch (fields["command"]) {
    case "start":
      return { kind: "start", streamId };
    case "stop":
      return { kind: "stop", streamId };
    case "takeConfiguration": {
      const type = fields["type"];
      if (type !== "offer" && type !== "answer") return undefined;
      return { kind: "description", streamId, type, sdp: string("sdp") };
    }
    case "takeCandidate":
      return { kind: "candidate", streamId, label: number(fields["label"]), candidate: string("candidate") };
    case "iceServerConfig":
      return { kind: "ice-servers", servers: iceServers(fields) };
    case "streamInformation": {
      const list = Array.isArray(fields["streamInfo"]) ? (fields["streamInfo"] as unknown[]) : [];
      const renditions = list
        .filter((item): item is Fields => typeof item === "object" && item !== null)
        .map((item) => ({
          streamWidth: number(item["streamWidth"]),
          streamHeight: number(item["streamHeight"]),
          videoBitrate: number(item["videoBitrate"]),
          audioBitrate: number(item["audioBitrate"]),
        }));
      return { kind: "stream-information", streamId, renditions };
    }
    case "notification":
      return { kind: "notification", definition: string("definition"), streamId, fields };
    case "error":
      return {
        kind: "error",
        error: {
          definition: string("definition"),
          streamId: optional("streamId"),
          information: optional("information") ?? optional("message"),
        },
      };
    default:
      return undefined;
  }
}

function iceServers(fields: Fields): RTCIceServer[] {
  const uri = fields["stunServerUri"];
  if (typeof uri !== "string" || !/^(stun|turn)s?:/.test(uri)) return [];
  if (uri.startsWith("stun")) return [{ urls: uri }];
  return [
    {
      urls: uri,
      username: String(fields["turnServerUsername"] ?? ""),
      credential: String(fields["turnServerCredential"] ?? ""),
    },
  ];
}

export class Signalling {
  readonly #address: string;
  readonly #events: SignallingEvents;
  #socket: WebSocket | undefined;
  #wanted = false;
  #everOpened = false;
  #attempts = 0;
  #heardAt = 0;
  #retryTimer: ReturnType<typeof setTimeout> | undefined;
  #openTimer: ReturnType<typeof setTimeout> | undefined;
  #pingTimer: ReturnType<typeof setInterval> | undefined;

  constructor(address: string, events: SignallingEvents) {
    this.#address = address;
    this.#events = events;
  }

  get isOpen(): boolean {
    return this.#socket?.readyState === WebSocket.OPEN;
  }

  /** Opens the socket and keeps it open. Does nothing when it is wanted already. */
  open(): void {
    if (this.#wanted) return;
    this.#wanted = true;
    this.#attempts = 0;
    this.#connect();
  }

  /** Closes the socket for good, until `open` is called again. */
  close(): void {
    this.#wanted = false;
    clearTimeout(this.#retryTimer);
    this.#drop();
  }

  /** Drops the socket and opens another, as after a notice that this server is about to stop. */
  reopen(): void {
    if (this.#wanted) this.#lose(this.#socket);
  }

  publish(request: PublishRequest): void {
    this.#send({
      command: "publish",
      streamId: request.streamId,
      token: request.token,
      subscriberId: request.subscriberId ?? "",
      subscriberCode: request.subscriberCode ?? "",
      streamName: request.streamName ?? "",
      mainTrack: request.mainTrack ?? "",
      video: request.video,
      audio: request.audio,
      metaData: request.metaData ?? "",
    });
  }

  play(request: PlayRequest): void {
    this.#send({
      command: "play",
      streamId: request.streamId,
      token: request.token ?? "",
      room: "",
      trackList: [],
      subscriberId: request.subscriberId ?? "",
      subscriberCode: request.subscriberCode ?? "",
      viewerInfo: "",
    });
  }

  stop(streamId: string): void {
    this.#send({ command: "stop", streamId });
  }

  describe(streamId: string, description: RTCSessionDescriptionInit): void {
    this.#send({ command: "takeConfiguration", streamId, type: description.type, sdp: description.sdp });
  }

  candidate(streamId: string, candidate: RTCIceCandidate): void {
    this.#send({
      command: "takeCandidate",
      streamId,
      label: candidate.sdpMLineIndex ?? 0,
      id: candidate.sdpMid ?? "0",
      candidate: candidate.candidate,
    });
  }

  askIceServers(): void {
    this.#send({ command: "getIceServerConfig" });
  }

  askStreamInfo(streamId: string): void {
    this.#send({ command: "getStreamInfo", streamId });
  }

  /** `height` 0 leaves the choice to the server. */
  forceQuality(streamId: string, height: number): void {
    this.#send({ command: "forceStreamQuality", streamId, streamHeight: height });
  }

  #send(frame: Fields): void {
    // While the socket is away nothing is kept: the owner repeats what still matters when it opens.
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(frame));
  }

  #connect(): void {
    const socket = new WebSocket(this.#address);
    this.#socket = socket;
    this.#openTimer = setTimeout(() => this.#lose(socket), OPEN_DEADLINE_MS);
    socket.onopen = () => {
      if (socket !== this.#socket) return;
      clearTimeout(this.#openTimer);
      this.#everOpened = true;
      this.#attempts = 0;
      this.#heardAt = performance.now();
      this.#pingTimer = setInterval(() => this.#ping(socket), PING_EVERY_MS);
      this.#events.opened();
    };
    socket.onmessage = (event: MessageEvent<unknown>) => {
      if (socket !== this.#socket) return;
      this.#heardAt = performance.now();
      const message = typeof event.data === "string" ? readMessage(event.data) : undefined;
      if (message) this.#events.message(message);
    };
    socket.onclose = () => this.#lose(socket);
  }

  #ping(socket: WebSocket): void {
    if (performance.now() - this.#heardAt > SILENCE_MAX_MS) this.#lose(socket);
    else this.#send({ command: "ping" });
  }

  #lose(socket: WebSocket | undefined): void {
    if (socket !== this.#socket) return;
    this.#drop();
    if (!this.#wanted) return;
    const pause = Math.min(RETRY_FIRST_MS * 2 ** this.#attempts, RETRY_MAX_MS) * (0.75 + Math.random() / 2);
    this.#attempts += 1;
    this.#retryTimer = setTimeout(() => this.#connect(), pause);
    this.#events.lost(this.#everOpened);
  }

  #drop(): void {
    clearTimeout(this.#openTimer);
    clearInterval(this.#pingTimer);
    const socket = this.#socket;
    this.#socket = undefined;
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close();
  }
}
