// The tracks a publish page shows and sends: opened once, exchanged when another source is chosen, closed at the end.

import { listDevices, openCamera, openScreen, stopStream, type CaptureChoice, type Devices } from "./capture";
import { Observable } from "./observable";
import { captureSentence, notice, type Notice } from "./sentences";

export class LocalMedia {
  readonly stream = new Observable<MediaStream | undefined>(undefined);
  readonly devices = new Observable<Devices>({ cameras: [], microphones: [] });
  /** What went wrong with camera, microphone or screen; undefined while all is well. */
  readonly trouble = new Observable<Notice | undefined>(undefined);
  /** The browser is asking the person, or the device is starting. */
  readonly opening = new Observable(false);

  /** Called when the person ended the sharing of the screen from the browser's own bar. */
  onScreenEnded: () => void = () => undefined;

  /** Opens what `choice` says and lets go of what was open. Returns whether it worked; on failure nothing changes. */
  async open(choice: CaptureChoice): Promise<boolean> {
    const screen = choice.video === "screen";
    this.opening.set(true);
    try {
      // Some devices can be open only once, so the old one goes first; a screen has no such rule, and may be refused.
      if (!screen) stopStream(this.stream.value);
      const opened = await (screen ? openScreen(choice) : openCamera(choice));
      if (screen) stopStream(this.stream.value);
      this.stream.set(opened);
      this.trouble.set(this.#missing(opened));
      const picture = opened.getVideoTracks()[0];
      // Not told when it is we who stop the track.
      picture?.addEventListener("ended", () => this.#ended(opened, screen));
      return true;
    } catch (error) {
      this.trouble.set(notice(screen ? "warn" : "bad", captureSentence(error, screen ? "screen" : "camera")));
      if (!screen) this.stream.set(undefined);
      return false;
    } finally {
      this.opening.set(false);
      await this.refresh();
    }
  }

  async refresh(): Promise<void> {
    this.devices.set(await listDevices());
  }

  #ended(stream: MediaStream, screen: boolean): void {
    if (stream !== this.stream.value) return;
    if (screen) {
      this.onScreenEnded();
      return;
    }
    this.trouble.set({
      tone: "bad",
      text: "The camera was disconnected.",
      advice: "Connect it again, or choose another one under More options.",
    });
  }

  #missing(stream: MediaStream): Notice | undefined {
    if (stream.getVideoTracks().length === 0) {
      return { tone: "warn", text: "No camera was found.", advice: "Only sound will be published." };
    }
    if (stream.getAudioTracks().length === 0) {
      return { tone: "warn", text: "No microphone was found.", advice: "Only the picture will be published." };
    }
    return undefined;
  }
}
