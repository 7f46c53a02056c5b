// The embedded player: nothing but the picture, made to stand in a frame of somebody else's page.

import { render } from "preact";
import { useEffect } from "preact/hooks";
import { pageParameters, socketAddress, streamIdProblem } from "./page_address";
import "./styles.css";
import { useObservable } from "./ui/hooks";
import { Stage } from "./ui/stage";
import { Viewer } from "./viewer";

const parameters = pageParameters(location.search);
const viewer = new Viewer(socketAddress(location, "edge"), parameters);

function EmbeddedPlayer({ streamId }: { streamId: string }) {
  const state = useObservable(viewer.state);
  useEffect(() => {
    if (parameters.autoplay) viewer.start(streamId);
    else viewer.prepare();
  }, []);
  const bad = state.notice.tone === "bad";
  const words = `${state.notice.text} ${state.notice.advice ?? ""}`;
  return (
    <div id="video_container" class="embedded">
      <Stage viewer={viewer} videoId="video-player" overlayId="video_info" muted={parameters.mute}>
        {state.phase === "stopped" ? (
          <button id="start_play_button" class="primary" type="button" onClick={() => viewer.start(streamId)}>
            Start Playing
          </button>
        ) : null}
      </Stage>
      <div class="sr-only" role="status">
        {bad ? "" : words}
      </div>
      <div class="sr-only" role="alert">
        {bad ? words : ""}
      </div>
    </div>
  );
}

/** The address of the page itself cannot be used. */
function BadAddress({ text }: { text: string }) {
  return (
    <div id="video_container" class="embedded">
      <div class="stage">
        <div id="video_info" class="overlay" role="alert">
          <p>{text}</p>
          <p class="overlay-advice">The address of this page should end with ?id= and the name of a stream.</p>
        </div>
      </div>
    </div>
  );
}

const root = document.getElementById("app");
if (root) {
  const streamId = parameters.streamId ?? "";
  const problem = streamId === "" ? "This address names no stream." : streamIdProblem(streamId);
  render(problem ? <BadAddress text={problem} /> : <EmbeddedPlayer streamId={streamId} />, root);
}
