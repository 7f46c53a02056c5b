// Turns the browser's statistics of one peer connection into the few numbers a page shows. Asked once a second.

/** Sums the reports of one direction; bit rates need two samples, so the sampler remembers the last one. */
export class RateMeter {
  #firstAt: number | undefined;
  #firstBytes = 0;
  #lastAt = 0;
  #lastBytes = 0;
  /** kbit/s since the first sample. */
  average = 0;
  /** kbit/s since the sample before. */
  latest = 0;

  /** `atMs` is the report's own time; returns the bytes gained. A counter that went back starts anew. */
  add(atMs: number, bytes: number): number {
    if (this.#firstAt === undefined || bytes < this.#lastBytes) {
      this.#firstAt = atMs;
      this.#firstBytes = bytes;
      this.#lastAt = atMs;
      this.#lastBytes = bytes;
      this.average = this.latest = 0;
      return bytes;
    }
    const gained = bytes - this.#lastBytes;
    // A byte per millisecond is 8 kbit/s.
    if (atMs > this.#lastAt) this.latest = Math.round((gained * 8) / (atMs - this.#lastAt));
    if (atMs > this.#firstAt) this.average = Math.round(((bytes - this.#firstBytes) * 8) / (atMs - this.#firstAt));
    this.#lastAt = atMs;
    this.#lastBytes = bytes;
    return gained;
  }
}

export interface ViewerStats {
  readonly averageKbps: number;
  readonly latestKbps: number;
  readonly bytes: number;
  readonly packetsLost: number;
  readonly jitterMs: number;
  /** 0 to 1. */
  readonly audioLevel: number;
  readonly audioPackets: number;
  readonly width: number;
  readonly height: number;
  readonly framesPerSecond: number;
  readonly framesReceived: number;
  readonly framesDecoded: number;
  readonly framesDropped: number;
}

export interface PublisherStats {
  readonly averageKbps: number;
  readonly latestKbps: number;
  readonly packetsLost: number;
  readonly jitterMs: number;
  readonly audioLevel: number;
  readonly roundTripMs: number;
  readonly sourceWidth: number;
  readonly sourceHeight: number;
  readonly sentWidth: number;
  readonly sentHeight: number;
  readonly framesPerSecond: number;
}

/** Fields that the browsers report and TypeScript's own types name only in part. */
type Report = Readonly<Record<string, unknown>>;

const number = (report: Report, name: string): number => {
  const value = report[name];
  return typeof value === "number" && Number.isFinite(value) ? value : 0;
};

function reportsOf(stats: RTCStatsReport, type: string): Report[] {
  const found: Report[] = [];
  stats.forEach((report: Report) => {
    if (report["type"] === type) found.push(report);
  });
  return found;
}

export async function viewerStats(peer: RTCPeerConnection, meter: RateMeter): Promise<ViewerStats> {
  const reports = reportsOf(await peer.getStats(), "inbound-rtp");
  const video = reports.filter((report) => report["kind"] === "video");
  const audio = reports.filter((report) => report["kind"] === "audio");
  const sum = (list: Report[], name: string): number => list.reduce((total, report) => total + number(report, name), 0);
  const most = (list: Report[], name: string): number =>
    list.reduce((top, report) => Math.max(top, number(report, name)), 0);
  const bytes = sum(reports, "bytesReceived");
  if (reports[0]) meter.add(number(reports[0], "timestamp"), bytes);
  return {
    averageKbps: meter.average,
    latestKbps: meter.latest,
    bytes,
    packetsLost: sum(reports, "packetsLost"),
    jitterMs: Math.round(most(reports, "jitter") * 1000),
    audioLevel: most(audio, "audioLevel"),
    audioPackets: sum(audio, "packetsReceived"),
    width: most(video, "frameWidth"),
    height: most(video, "frameHeight"),
    framesPerSecond: Math.round(most(video, "framesPerSecond")),
    framesReceived: sum(video, "framesReceived"),
    framesDecoded: sum(video, "framesDecoded"),
    framesDropped: sum(video, "framesDropped"),
  };
}

export async function publisherStats(peer: RTCPeerConnection, meter: RateMeter): Promise<PublisherStats> {
  const all = await peer.getStats();
  const sent = reportsOf(all, "outbound-rtp");
  const heard = reportsOf(all, "remote-inbound-rtp");
  const sources = reportsOf(all, "media-source");
  const most = (list: Report[], name: string): number =>
    list.reduce((top, report) => Math.max(top, number(report, name)), 0);
  if (sent[0]) {
    meter.add(
      number(sent[0], "timestamp"),
      sent.reduce((total, report) => total + number(report, "bytesSent"), 0),
    );
  }
  return {
    averageKbps: meter.average,
    latestKbps: meter.latest,
    packetsLost: heard.reduce((total, report) => total + number(report, "packetsLost"), 0),
    jitterMs: Math.round(most(heard, "jitter") * 1000),
    audioLevel: most(sources, "audioLevel"),
    roundTripMs: Math.round(most(heard, "roundTripTime") * 1000),
    sourceWidth: most(sources, "width"),
    sourceHeight: most(sources, "height"),
    sentWidth: most(sent, "frameWidth"),
    sentHeight: most(sent, "frameHeight"),
    framesPerSecond: Math.round(most(sent, "framesPerSecond")),
  };
}
