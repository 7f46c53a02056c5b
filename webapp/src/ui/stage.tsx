// The picture being watched, and over it the sentence for as long as there is no picture.

import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import type { Viewer } from "../viewer";
import { useObservable } from "./hooks";

interface StageProps {
  readonly viewer: Viewer;
  readonly videoId: string;
  readonly overlayId: string;
  /** Start without sound, as an address may ask. */
  readonly muted?: boolean;
  readonly children?: ComponentChildren;
}

export function Stage({ viewer, videoId, overlayId, muted = false, children }: StageProps) {
  const video = useRef<HTMLVideoElement>(null);
  const state = useObservable(viewer.state);
  const media = useObservable(viewer.media);
  // The browser allowed the picture only without sound.
  const [silenced, setSilenced] = useState(false);
  // The browser did not even allow that: a press of a button is needed.
  const [held, setHeld] = useState(false);

  const play = async (element: HTMLVideoElement) => {
    try {
      await element.play();
      setHeld(false);
    } catch (error) {
      if (!(error instanceof Error) || error.name !== "NotAllowedError") return;
      if (element.muted) {
        setHeld(true);
        return;
      }
      element.muted = true;
      setSilenced(true);
      await play(element);
    }
  };

  useEffect(() => {
    if (video.current) video.current.muted = muted;
  }, [muted]);

  useEffect(() => {
    const element = video.current;
    if (!element) return;
    element.srcObject = media ?? null;
    if (!media) return;
    let current = true;
    const seen = () => {
      if (current) viewer.firstFrame();
    };
    if ("requestVideoFrameCallback" in element) element.requestVideoFrameCallback(seen);
    else (element as HTMLVideoElement).addEventListener("loadeddata", seen, { once: true });
    void play(element);
    return () => {
      current = false;
    };
  }, [media]);

  const { phase, notice } = state;
  const soundOnly = phase === "playing" && media !== undefined && media.getVideoTracks().length === 0;
  const covered = phase !== "playing" || soundOnly;
  return (
    <div class={`stage ${phase === "interrupted" && media ? "stage-dimmed" : ""}`}>
      <video id={videoId} ref={video} autoPlay playsInline controls={phase === "playing" || phase === "interrupted"} />
      {/* Read out by the live region of the page, so silent here. */}
      <div id={overlayId} class="overlay" hidden={!covered} aria-hidden="true">
        {notice.tone === "busy" || (notice.tone === "warn" && phase !== "stopped") ? <span class="spinner" /> : null}
        <p>{soundOnly ? "This stream has sound only." : notice.text}</p>
        {notice.advice ? <p class="overlay-advice">{notice.advice}</p> : null}
      </div>
      <div class="stage-buttons">
        {held ? (
          <button
            id="play_button"
            class="primary"
            type="button"
            onClick={() => video.current && void play(video.current)}
          >
            Play
          </button>
        ) : null}
        {silenced && !held ? (
          <button
            id="unmuteButton"
            type="button"
            onClick={() => {
              if (video.current) video.current.muted = false;
              setSilenced(false);
            }}
          >
            Turn on sound
          </button>
        ) : null}
        {children}
      </div>
    </div>
  );
}
