// What publisher and viewer share of one peer connection: candidates in either order, the data channel, the way out.

import type { Signalling } from "./signalling";

export interface PeerEvents {
  /** The state of the connection as a whole. Only the current peer reports. */
  changed(state: RTCIceConnectionState): void;
  /** Text from the data channel. */
  text(text: string): void;
}

export class Peer {
  readonly connection: RTCPeerConnection;
  readonly #streamId: string;
  readonly #signalling: Signalling;
  readonly #events: PeerEvents;
  /** Candidates that came before the description they belong to. */
  #early: RTCIceCandidateInit[] = [];
  #channels: RTCDataChannel[] = [];
  #closed = false;

  constructor(streamId: string, servers: RTCIceServer[], signalling: Signalling, events: PeerEvents) {
    this.#streamId = streamId;
    this.#signalling = signalling;
    this.#events = events;
    this.connection = new RTCPeerConnection({ iceServers: servers, bundlePolicy: "max-bundle" });
    this.connection.onicecandidate = ({ candidate }) => {
      if (candidate && candidate.candidate && !this.#closed) this.#signalling.candidate(this.#streamId, candidate);
    };
    this.connection.oniceconnectionstatechange = () => {
      if (!this.#closed) this.#events.changed(this.connection.iceConnectionState);
    };
    this.connection.ondatachannel = ({ channel }) => this.#adopt(channel);
  }

  openChannel(): void {
    this.#adopt(this.connection.createDataChannel(this.#streamId, { ordered: true }));
  }

  async offer(): Promise<void> {
    await this.connection.setLocalDescription(await this.connection.createOffer());
    this.#announce();
  }

  async answer(sdp: string): Promise<void> {
    await this.#remote({ type: "offer", sdp });
    const answer = await this.connection.createAnswer();
    // Without this the browser asks for one channel and plays stereo as mono (RFC 7587, section 7.1).
    answer.sdp = answer.sdp?.replaceAll(/(useinbandfec=1)(?!;\s*stereo)/g, "$1;stereo=1") ?? "";
    await this.connection.setLocalDescription(answer);
    this.#announce();
  }

  async accept(sdp: string): Promise<void> {
    await this.#remote({ type: "answer", sdp });
  }

  candidate(label: number, candidate: string): void {
    if (candidate === "") return;
    const init = { candidate, sdpMLineIndex: label };
    if (!this.connection.remoteDescription) this.#early.push(init);
    else void this.connection.addIceCandidate(init).catch(() => undefined);
  }

  /** Returns whether the text was sent. */
  send(text: string): boolean {
    const open = this.#channels.filter((channel) => channel.readyState === "open");
    const channel = open.find((candidate) => candidate.label === this.#streamId) ?? open[0];
    channel?.send(text);
    return channel !== undefined;
  }

  close(): void {
    this.#closed = true;
    for (const channel of this.#channels) channel.close();
    this.connection.close();
  }

  async #remote(description: RTCSessionDescriptionInit): Promise<void> {
    await this.connection.setRemoteDescription(description);
    // A candidate the browser cannot use is not a failure: others may do.
    for (const init of this.#early.splice(0)) void this.connection.addIceCandidate(init).catch(() => undefined);
  }

  #announce(): void {
    const description = this.connection.localDescription;
    if (description && !this.#closed) this.#signalling.describe(this.#streamId, description);
  }

  #adopt(channel: RTCDataChannel): void {
    this.#channels.push(channel);
    channel.onmessage = (event: MessageEvent<unknown>) => {
      if (typeof event.data === "string" && !this.#closed) this.#events.text(event.data);
    };
  }
}
