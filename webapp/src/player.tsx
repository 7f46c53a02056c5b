// The player page.

import { render } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { DEFAULT_STREAM, pageParameters, socketAddress, streamIdProblem } from "./page_address";
import type { ViewerStats } from "./stats";
import "./styles.css";
import { Figures, Value } from "./ui/figures";
import { useObservable } from "./ui/hooks";
import { MessageLog, Messages } from "./ui/messages";
import { NoticeLine } from "./ui/notice_line";
import { Shell } from "./ui/shell";
import { Stage } from "./ui/stage";
import { Viewer } from "./viewer";

const parameters = pageParameters(location.search);
const log = new MessageLog();
const viewer = new Viewer(socketAddress(location, "edge"), parameters, (text) => log.add("other", text));

/** A change of rendition freezes the picture for a moment: better said than seen. */
const RENDITION_PAUSE_MS = 2000;

function QualityMenu() {
  const heights = useObservable(viewer.heights);
  const [chosen, setChosen] = useState(0);
  const [open, setOpen] = useState(false);
  const box = useRef<HTMLDivElement>(null);
  useEffect(() => {
    if (!open) return;
    const away = (event: Event) => {
      if (!box.current?.contains(event.target as Node)) setOpen(false);
    };
    document.addEventListener("pointerdown", away);
    return () => document.removeEventListener("pointerdown", away);
  }, [open]);
  useEffect(() => {
    if (heights.length === 0) setChosen(0);
  }, [heights]);
  const pick = (height: number) => {
    setChosen(height);
    setOpen(false);
    viewer.forceQuality(height);
  };
  return (
    <div
      class="dropdown"
      ref={box}
      onKeyDown={(event) => {
        if (event.key === "Escape") setOpen(false);
      }}
    >
      <button
        id="dropdownMenuButton"
        type="button"
        aria-haspopup="true"
        aria-expanded={open}
        aria-controls="dropdownMenu"
        disabled={heights.length === 0}
        onClick={() => setOpen(!open)}
      >
        Resolution: {chosen === 0 ? "automatic" : `${chosen}p`}
      </button>
      <div id="dropdownMenu" class="dropdown-menu" hidden={!open}>
        {[0, ...heights].map((height) => (
          <button
            key={height}
            type="button"
            class="dropdown-item"
            aria-pressed={height === chosen}
            onClick={() => pick(height)}
          >
            {height === 0 ? "Automatic" : `${height}p`}
          </button>
        ))}
      </div>
    </div>
  );
}

function Statistics({ stats }: { stats: ViewerStats | undefined }) {
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
        { label: "Audio level", value: <Value id="audio_level">{stats?.audioLevel.toFixed(2)}</Value> },
        {
          label: "Picture",
          value: (
            <>
              <Value id="frame_width">{stats?.width}</Value> × <Value id="frame_height">{stats?.height}</Value>
            </>
          ),
        },
        { label: "Frames a second", value: <Value id="frame_rendered">{stats?.framesPerSecond}</Value> },
        { label: "Frames decoded", value: <Value id="frame_decoded">{stats?.framesDecoded}</Value> },
        { label: "Frames received", value: <Value id="frame_received">{stats?.framesReceived}</Value> },
        { label: "Frames dropped", value: <Value id="frame_dropped">{stats?.framesDropped}</Value> },
      ]}
    />
  );
}

function PlayerPage() {
  const state = useObservable(viewer.state);
  const stats = useObservable(viewer.stats);
  const weak = useObservable(viewer.weakNetwork);
  const changedAt = useObservable(viewer.renditionChangedAt);
  const [name, setName] = useState(parameters.streamId ?? DEFAULT_STREAM);
  const [more, setMore] = useState(false);
  const [switching, setSwitching] = useState(false);
  const stopped = state.phase === "stopped";
  const problem = streamIdProblem(name);

  useEffect(() => viewer.prepare(), []);
  useEffect(() => {
    if (changedAt === 0) return;
    setSwitching(true);
    const timer = setTimeout(() => setSwitching(false), RENDITION_PAUSE_MS);
    return () => clearTimeout(timer);
  }, [changedAt]);

  const start = (event: Event) => {
    event.preventDefault();
    if (!problem && stopped) viewer.start(name);
  };
  return (
    <Shell here="play">
      <h1>Play</h1>
      <div class="columns">
        <div class="column">
          <Stage viewer={viewer} videoId="remoteVideo" overlayId="video-overlay" muted={parameters.mute}>
            {switching ? <span class="pill">Changing resolution…</span> : null}
          </Stage>
          <NoticeLine id="notice" notice={problem && stopped ? { tone: "warn", text: problem } : state.notice} />
          <p id="bitrateInfo" class="weak" role="status" hidden={!weak}>
            Weak Network Connection
          </p>
          <form class="controls" onSubmit={start}>
            <label class="field grow">
              <span>Stream name</span>
              <input
                id="streamName"
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
              <button id="start_play_button" class="primary" type="submit" disabled={!stopped || problem !== undefined}>
                Start Playing
              </button>
              <button id="stop_play_button" type="button" disabled={stopped} onClick={() => viewer.stop()}>
                Stop Playing
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
            <QualityMenu />
          </div>
        </div>
        <div class="column column-side">
          <Statistics stats={stats} />
          <Messages log={log} send={(text) => viewer.send(text)} />
        </div>
      </div>
    </Shell>
  );
}

const root = document.getElementById("app");
if (root) render(<PlayerPage />, root);
