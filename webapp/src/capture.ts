// Opens the camera, the microphone and the screen. Keeps nothing: whoever asks owns the tracks and stops them.

export interface CaptureChoice {
  /** A camera's device id, "" for the default one, or "screen". */
  readonly video: string;
  /** A microphone's device id, or "" for the default one. */
  readonly audio: string;
  readonly width: number;
  readonly height: number;
  readonly noiseSuppression: boolean;
  readonly echoCancellation: boolean;
}

export interface Devices {
  readonly cameras: readonly MediaDeviceInfo[];
  readonly microphones: readonly MediaDeviceInfo[];
}

/** Why there is no camera to be had on this page at all. */
class InsecureContext extends Error {
  override name = "InsecureContext";
}

function mediaDevices(): MediaDevices {
  // Undefined, whatever the types say, on a page opened over plain http from another machine.
  const devices = navigator.mediaDevices as MediaDevices | undefined;
  if (!devices) throw new InsecureContext();
  return devices;
}

export async function listDevices(): Promise<Devices> {
  try {
    const all = await mediaDevices().enumerateDevices();
    // Without permission devices have neither id nor name, and the list says only how many there are.
    return {
      cameras: all.filter((device) => device.kind === "videoinput"),
      microphones: all.filter((device) => device.kind === "audioinput"),
    };
  } catch {
    return { cameras: [], microphones: [] };
  }
}

export function onDevicesChanged(reader: () => void): () => void {
  const devices = navigator.mediaDevices as MediaDevices | undefined;
  devices?.addEventListener("devicechange", reader);
  return () => devices?.removeEventListener("devicechange", reader);
}

/** Opens what there is: both, or only a picture, or only sound. Rejects when there is neither. */
export async function openCamera(choice: CaptureChoice): Promise<MediaStream> {
  const devices = mediaDevices();
  const video = videoConstraints(choice);
  const audio = audioConstraints(choice);
  try {
    return await devices.getUserMedia({ video, audio });
  } catch (error) {
    if (!(error instanceof Error) || error.name !== "NotFoundError") throw error;
    const there = await listDevices();
    if (there.cameras.length > 0 && there.microphones.length === 0) return devices.getUserMedia({ video });
    if (there.microphones.length > 0 && there.cameras.length === 0) return devices.getUserMedia({ audio });
    throw error;
  }
}

/** Opens the screen, with the microphone for sound when there is one. */
export async function openScreen(choice: CaptureChoice): Promise<MediaStream> {
  const devices = mediaDevices();
  const screen = await devices.getDisplayMedia({ video: { frameRate: { ideal: 30 } }, audio: false });
  try {
    const sound = await devices.getUserMedia({ audio: audioConstraints(choice) });
    for (const track of sound.getAudioTracks()) screen.addTrack(track);
  } catch {
    // A screen without sound is still worth publishing.
  }
  return screen;
}

function videoConstraints(choice: CaptureChoice): MediaTrackConstraints {
  return {
    width: { ideal: choice.width },
    height: { ideal: choice.height },
    frameRate: { ideal: 30 },
    ...(choice.video && choice.video !== "screen" ? { deviceId: { exact: choice.video } } : {}),
  };
}

function audioConstraints(choice: CaptureChoice): MediaTrackConstraints {
  return {
    noiseSuppression: choice.noiseSuppression,
    echoCancellation: choice.echoCancellation,
    ...(choice.audio ? { deviceId: { exact: choice.audio } } : {}),
  };
}

export function stopStream(stream: MediaStream | undefined): void {
  for (const track of stream?.getTracks() ?? []) track.stop();
}
