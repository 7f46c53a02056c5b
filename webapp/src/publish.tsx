// The publish page.

import { render } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { onDevicesChanged, type CaptureChoice } from "./capture";
import { LocalMedia } from "./local_media";
import { DEFAULT_STREAM, pageParameters, playAddress, socketAddress, streamIdProblem } from "./page_address";
import { Publisher } from "./publisher";
import type { Notice } from "./sentences";
import type { PublisherStats } from "./stats";
import "./styles.css";
import { Figures, Value } from "./ui/figures";
import { useObservable } from "./ui/hooks";
import { MessageLog, Messages } from "./ui/messages";
import { NoticeLine } from "./ui/notice_line";
import { Shell } from "./ui/shell";

/** kbit/s until the person says otherwise, as AMS's own page. */
const BANDWIDTH_KBPS = 1200;
const BANDWIDTH_MIN_KBPS = 50;
const BANDWIDTH_MAX_KBPS = 20_000;
const RESOLUTIONS = [
  { width: 640, height: 480 },
  { width: 1280, height: 720 },
  { width: 1920, height: 1080 },
] as const;

const parameters = pageParameters(location.search);
const log = new MessageLog();
const media = new LocalMedia();
const publisher = new Publisher(socketAddress(location, "origin"), BANDWIDTH_KBPS, (text) => log.add("other", text));
/** The server may say where viewers are to go, when that is not this host. */
const playBase = document.querySelector<HTMLMetaElement>('meta[name="ams-play-base"]')?.content;

function Preview() {
  const video = useRef<HTMLVideoElement>(null);
  const stream = useObservable(media.stream);
  const trouble = useObservable(media.trouble);
  const opening = useObservable(media.opening);
  useEffect(() => {
    if (video.current) video.current.srcObject = stream ?? null;
  }, [stream]);
  const picture = stream !== undefined && stream.getVideoTracks().length > 0;
  return (
    <div class="stage">
      <video id="localVideo" ref={video} autoPlay muted playsInline aria-label="Preview of what is published" />
      <div class="overlay" hidden={picture} aria-hidden="true">
        {opening ? <span class="spinner" /> : null}
        <p>{opening ? "Opening the camera. The browser may ask for permission." : (trouble?.text ?? "No picture.")}</p>
        {!opening && trouble?.advice ? <p class="overlay-advice">{trouble.advice}</p> : null}
      </div>
    </div>
  );
}

interface SourcesProps {
  readonly choice: CaptureChoice;
  readonly choose: (choice: CaptureChoice) => void;
}

function Sources({ choice, choose }: SourcesProps) {
  const { cameras, microphones } = useObservable(media.devices);
  const opening = useObservable(media.opening);
  const named = (device: MediaDeviceInfo, kind: string, index: number) => device.label || `${kind} ${index + 1}`;
  // Before permission is given, devices have no id to be chosen by.
  const known = (devices: readonly MediaDeviceInfo[]) => devices.filter((device) => device.deviceId !== "");
  const radio = (
    group: "videoSource" | "audioDeviceSource",
    value: string,
    label: string,
    checked: boolean,
    pick: () => void,
  ) => (
    <label key={value} class="choice">
      <input type="radio" name={group} value={value} checked={checked} disabled={opening} onChange={pick} />
      <span>{label}</span>
    </label>
  );
  const firstCamera = known(cameras)[0]?.deviceId;
  const firstMicrophone = known(microphones)[0]?.deviceId;
  return (
    <>
      <fieldset>
        <legend>Picture</legend>
        {known(cameras).length === 0
          ? radio("videoSource", "", "Camera", choice.video === "", () => choose({ ...choice, video: "" }))
          : null}
        {known(cameras).map((device, index) =>
          radio(
            "videoSource",
            device.deviceId,
            named(device, "Camera", index),
            choice.video === device.deviceId || (choice.video === "" && device.deviceId === firstCamera),
            () => choose({ ...choice, video: device.deviceId }),
          ),
        )}
        {radio("videoSource", "screen", "Screen", choice.video === "screen", () =>
          choose({ ...choice, video: "screen" }),
        )}
      </fieldset>
      <fieldset>
        <legend>Sound</legend>
        {known(microphones).length === 0 ? <p class="quiet">No microphone to choose from yet.</p> : null}
        {known(microphones).map((device, index) =>
          radio(
            "audioDeviceSource",
            device.deviceId,
            named(device, "Microphone", index),
            choice.audio === device.deviceId || (choice.audio === "" && device.deviceId === firstMicrophone),
            () => choose({ ...choice, audio: device.deviceId }),
          ),
        )}
        <label class="choice">
          <input
            id="noiseSuppression"
            type="checkbox"
            checked={choice.noiseSuppression}
            disabled={opening}
            onChange={(event) => choose({ ...choice, noiseSuppression: event.currentTarget.checked })}
          />
          <span>Suppress noise</span>
        </label>
        <label class="choice">
          <input
            id="echoCancellation"
            type="checkbox"
            checked={choice.echoCancellation}
            disabled={opening}
            onChange={(event) => choose({ ...choice, echoCancellation: event.currentTarget.checked })}
          />
          <span>Cancel echo</span>
        </label>
      </fieldset>
      <label class="field">
        <span>Resolution</span>
        <select
          id="resolution"
          value={`${choice.height}`}
          disabled={opening || choice.video === "screen"}
          onChange={(event) => {
            const chosen = RESOLUTIONS.find(({ height }) => `${height}` === event.currentTarget.value);
            if (chosen) choose({ ...choice, ...chosen });
          }}
        >
          {RESOLUTIONS.map(({ width, height }) => (
            <option key={height} value={`${height}`}>
              {width} × {height}
            </option>
          ))}
        </select>
      </label>
    </>
  );
}

function Bandwidth({ say }: { say: (notice: Notice | undefined) => void }) {
  const [text, setText] = useState(`${BANDWIDTH_KBPS}`);
  const apply = (event: Event) => {
    event.preventDefault();
    const kbps = Number(text);
    if (!Number.isInteger(kbps) || kbps < BANDWIDTH_MIN_KBPS || kbps > BANDWIDTH_MAX_KBPS) {
      say({
        tone: "warn",
        text: `The bit rate must be a whole number from ${BANDWIDTH_MIN_KBPS} to ${BANDWIDTH_MAX_KBPS} kbit/s.`,
      });
      return;
    }
    say(undefined);
    void publisher.limit(kbps);
  };
  return (
    <form class="row row-end" onSubmit={apply} noValidate>
      <label class="field grow">
        <span>Highest video bit rate, kbit/s</span>
        <input
          id="maxBandwidthTextBox"
          type="text"
          inputMode="numeric"
          value={text}
          onInput={(event) => setText(event.currentTarget.value.trim())}
        />
      </label>
      <button id="max_bandwidth_apply" type="submit">
        Apply
      </button>
    </form>
  );
}

function Statistics({ stats }: { stats: PublisherStats | undefined }) {
  return (
    <Figures
      title="Statistics"
      figures={[
        {
          label: "Average bit rate",
          value: (
            <Value id="average_bit_rate" unit="kbit/s">
              {stats?.averageKbps}
            </Value>
          ),
        },
        {
          label: "Latest bit rate",
          value: (
            <Value id="latest_bit_rate" unit="kbit/s">
              {stats?.latestKbps}
            </Value>
          ),
        },
        { label: "Packets lost", value: <Value id="packet_lost_text">{stats?.packetsLost}</Value> },
        {
          label: "Jitter",
          value: (
            <Value id="jitter_text" unit="ms">
              {stats?.jitterMs}
            </Value>
          ),
        },
        {
          label: "Round trip",
          value: (
            <Value id="round_trip_time" unit="ms">
              {stats?.roundTripMs}
            </Value>
          ),
        },
        { label: "Audio level", value: <Value id="audio_level_text">{stats?.audioLevel.toFixed(2)}</Value> },
        {
          label: "Camera",
          value: (
            <>
              <Value id="source_width">{stats?.sourceWidth}</Value> ×{" "}
              <Value id="source_height">{stats?.sourceHeight}</Value>
            </>
          ),
        },
        {
          label: "Sent",
          value: (
            <>
              <Value id="ongoing_width">{stats?.sentWidth}</Value> ×{" "}
              <Value id="ongoing_height">{stats?.sentHeight}</Value>
            </>
          ),
        },
        { label: "Frames a second", value: <Value id="on_going_fps">{stats?.framesPerSecond}</Value> },
      ]}
    />
  );
}

function PlayLink({ streamId }: { streamId: string }) {
  const address = playAddress(streamId, location, playBase);
  const [copied, setCopied] = useState(false);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(address);
      setCopied(true);
      setTimeout(() => setCopied(false), 2000);
    } catch {
      setCopied(false);
    }
  };
  return (
    <div class="share">
      <span class="quiet">Watch at</span>
      <a id="playlink" href={address} target="_blank" rel="noopener">
        {address}
      </a>
      {/* Only pages opened over https, or on this machine, may write to the clipboard. */}
      {window.isSecureContext ? (
        <button type="button" onClick={() => void copy()}>
          {copied ? "Copied" : "Copy link"}
        </button>
      ) : null}
    </div>
  );
}

function PublishPage() {
  const state = useObservable(publisher.state);
  const stats = useObservable(publisher.stats);
  const reachable = useObservable(publisher.reachable);
  const trouble = useObservable(media.trouble);
  const opening = useObservable(media.opening);
  const [name, setName] = useState(parameters.streamId ?? DEFAULT_STREAM);
  const [more, setMore] = useState(false);
  const [said, say] = useState<Notice | undefined>(undefined);
  const [choice, setChoice] = useState<CaptureChoice>({
    video: "",
    audio: "",
    ...RESOLUTIONS[0],
    noiseSuppression: true,
    echoCancellation: true,
  });
  // The server was reached at least once: from then on starting waits for it by itself.
  const [initialized, setInitialized] = useState(false);
  const stopped = state.phase === "stopped";
  const live = state.phase === "publishing";
  const problem = streamIdProblem(name);

  const open = async (next: CaptureChoice): Promise<boolean> => {
    const opened = await media.open(next);
    // A refused screen leaves what was there.
    if (opened || next.video !== "screen") setChoice(next);
    if (opened && media.stream.value) await publisher.exchange(media.stream.value);
    return opened;
  };

  useEffect(() => {
    publisher.prepare();
    void open(choice);
    return onDevicesChanged(() => void media.refresh());
  }, []);
  useEffect(() => {
    media.onScreenEnded = () => {
      say({ tone: "warn", text: "Sharing of the screen has ended.", advice: "Back to the camera." });
      void open({ ...choice, video: "" });
    };
  }, [choice]);
  useEffect(() => {
    if (reachable) setInitialized(true);
  }, [reachable]);

  const start = async (event: Event) => {
    event.preventDefault();
    if (problem || !stopped) return;
    say(undefined);
    if (!media.stream.value && !(await open(choice))) return;
    const stream = media.stream.value;
    if (!stream) return;
    publisher.start(
      {
        streamId: name,
        token: parameters.token,
        subscriberId: parameters.subscriberId,
        subscriberCode: parameters.subscriberCode,
        streamName: parameters.streamName ?? name,
        mainTrack: parameters.mainTrack,
        metaData: parameters.metaData,
      },
      stream,
    );
  };

  const own = said ?? trouble;
  // "Ready" beside a camera that cannot be opened would be no help.
  const ownAlone = own?.tone === "bad" && stopped && state.notice.tone === "idle";
  const shown: Notice = stopped && problem ? { tone: "warn", text: problem } : ownAlone && own ? own : state.notice;
  return (
    <Shell here="publish">
      <div class="title">
        <h1>Publish</h1>
        <span id="offlineInfo" class="pill" hidden={live}>
          Status: Offline
        </span>
        <span id="broadcastingInfo" class="pill pill-live" hidden={!live}>
          Status: Publishing
        </span>
      </div>
      <div class="columns">
        <div class="column">
          <Preview />
          {own && !ownAlone ? <NoticeLine id="device-notice" notice={own} /> : null}
          <NoticeLine id="notice" notice={shown} />
          {live ? <PlayLink streamId={name} /> : null}
          <form class="controls" onSubmit={(event) => void start(event)}>
            <label class="field grow">
              <span>Stream name</span>
              <input
                id="streamId"
                name="streamIdTextBox"
                type="text"
                value={name}
                disabled={!stopped}
                autocomplete="off"
                autocapitalize="off"
                spellcheck={false}
                aria-invalid={problem !== undefined}
                onInput={(event) => setName(event.currentTarget.value.trim())}
              />
            </label>
            <div class="buttons">
              <button
                id="start_publish_button"
                class="primary"
                type="submit"
                disabled={!stopped || !initialized || opening || problem !== undefined}
              >
                Start Publishing
              </button>
              <button id="stop_publish_button" type="button" disabled={stopped} onClick={() => publisher.stop()}>
                Stop Publishing
              </button>
            </div>
          </form>
          <button
            id="options"
            class="link"
            type="button"
            aria-expanded={more}
            aria-controls="more"
            onClick={() => setMore(!more)}
          >
            {more ? "Fewer options" : "More options"}
          </button>
          <div id="more" class="options" hidden={!more}>
            <Sources choice={choice} choose={(next) => void open(next)} />
            <Bandwidth say={say} />
          </div>
        </div>
        <div class="column column-side">
          <Statistics stats={stats} />
          <Messages log={log} send={(text) => publisher.send(text)} />
        </div>
      </div>
    </Shell>
  );
}

const root = document.getElementById("app");
if (root) render(<PublishPage />, root);
