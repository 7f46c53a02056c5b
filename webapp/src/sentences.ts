// What every failure means to the person in front of the page, and what to do about it.
//
// One place for all of them, so that no page ever shows a bare code.

import type { ServerError } from "./signalling";

export type Tone = "idle" | "busy" | "good" | "warn" | "bad";

/** What the page says about its state: one sentence, and where it helps a second one about what to do. */
export interface Notice {
  readonly tone: Tone;
  readonly text: string;
  readonly advice?: string | undefined;
}

export interface Sentence {
  readonly text: string;
  readonly advice?: string;
  /** Seconds after which trying again by itself makes sense; undefined when only a person can help. */
  readonly retryAfterS?: number;
}

export type Role = "publisher" | "viewer";

type Entry = (streamId: string, role: Role) => Sentence;

const SERVER: Readonly<Record<string, Entry>> = {
  noStreamNameSpecified: () => ({ text: "No stream name was given.", advice: "Type a stream name and start again." }),
  invalidStreamName: (id) => ({
    text: `“${id}” cannot be a stream name.`,
    advice: "Use letters, digits, dots, dashes and underscores only.",
  }),
  not_initialized_yet: () => ({
    text: "The server is still starting.",
    advice: "This page tries again by itself.",
    retryAfterS: 2,
  }),
  data_store_not_available: () => ({
    text: "The server cannot reach its database right now.",
    advice: "This page tries again by itself. If it lasts, the operator should look at the database.",
    retryAfterS: 5,
  }),
  license_suspended_please_renew_license: () => ({
    text: "The server says that its licence is suspended.",
    advice: "Ask the operator to renew it.",
  }),
  highResourceUsage: (_, role) => ({
    text: "The server is at its limit.",
    advice:
      role === "viewer"
        ? "This page tries again by itself; other viewers may leave meanwhile."
        : "This page tries again by itself. The operator can add another origin.",
    retryAfterS: 10,
  }),
  no_codec_enabled_in_the_server: () => ({
    text: "The server accepts none of this browser's codecs.",
    advice: "Try another browser, or ask the operator which codecs are enabled.",
  }),
  streamIdInUse: (id) => ({
    text: `Somebody is publishing as “${id}” already.`,
    advice: "Choose another stream name, or stop the other publisher first.",
  }),
  already_publishing: (id) => ({
    text: `This page is publishing “${id}” already.`,
    advice: "Stop it before starting again.",
  }),
  already_playing: (id) => ({
    text: `This page is playing “${id}” already.`,
    advice: "Stop it before starting again.",
    retryAfterS: 1,
  }),
  not_allowed_unregistered_streams: (id) => ({
    text: `The server takes only streams that were registered, and “${id}” is not.`,
    advice: "Ask the operator to create it, or use a name that exists.",
  }),
  stream_not_active_or_expired: (id) => ({
    text: `“${id}” is outside the time it was planned for.`,
    advice: "Come back at the announced time, or ask who planned it.",
  }),
  unauthorized_access: (id, role) => ({
    text: `The server does not allow you to ${role === "viewer" ? "watch" : "publish"} “${id}”.`,
    advice: "Open this page with a valid token in its address, or ask for a new link.",
  }),
  user_blocked: (id, role) => ({
    text: `You were blocked from ${role === "viewer" ? "watching" : "publishing"} “${id}”.`,
    advice: "Ask whoever runs the stream.",
  }),
  viewerLimitReached: (id) => ({
    text: `“${id}” has as many viewers as it is allowed.`,
    advice: "This page tries again by itself; a place may become free.",
    retryAfterS: 10,
  }),
  no_stream_exist: (id) => ({ text: `“${id}” is not being published right now.`, retryAfterS: 3 }),
  publishTimeoutError: () => ({
    text: "No picture or sound reached the server in time.",
    advice: "A firewall may block UDP between you and the server (usually ports 50000 to 60000).",
  }),
  noPacketReceivedForTimeoutDuration: () => ({
    text: "The server received nothing for a while and ended the stream.",
    advice: "Check the connection of this device and start again.",
  }),
  notSetRemoteDescription: () => ({
    text: "Browser and server could not agree on how to send the media.",
    advice: "Reload the page. If it stays, try another browser and tell the operator.",
  }),
  notSetLocalDescription: () => ({
    text: "The server could not set up the media connection.",
    advice: "Start again. If it stays, tell the operator.",
  }),
  encoderNotOpened: () => ({
    text: "The server could not open its encoder.",
    advice: "Start again. If it stays, tell the operator.",
  }),
  encoderBlocked: () => ({
    text: "The server's encoder cannot keep up.",
    advice: "Publish with a lower resolution or bit rate.",
  }),
  server_error_check_logs: () => ({
    text: "Something went wrong on the server.",
    advice: "Start again. The reason is in the server's log.",
  }),
  mainTrackDBOperationFailed: () => ({
    text: "The server could not record the room this stream belongs to.",
    advice: "Start again. If it stays, the operator should look at the database.",
  }),
  main_track_has_max_subtrack_count__not_allowed_to_add_more_subtracks: () => ({
    text: "The room has as many publishers as it is allowed.",
    advice: "Wait until one leaves.",
  }),
  no_room_specified: () => ({ text: "No room was given.", advice: "Name a room and start again." }),
  room_not_active_or_expired: () => ({
    text: "The room is outside the time it was planned for.",
    advice: "Come back at the announced time.",
  }),
  no_active_streams_in_room: () => ({ text: "Nobody is publishing in this room yet.", retryAfterS: 3 }),
  no_peer_associated_before: () => ({
    text: "The other side is not there.",
    advice: "Start again when both are connected.",
  }),
  authenticationTokenNotValid: () => ({
    text: "The token in this page's address is not valid.",
    advice: "Ask for a new link.",
  }),
  missingParameter: () => ({
    text: "The server misses something in the request.",
    advice: "Check the address of this page.",
  }),
};

/** Every definition that has its own sentence. */
export const SERVER_DEFINITIONS: readonly string[] = Object.keys(SERVER);

/** Some servers explain themselves in words: those win over ours. */
function isSentence(text: string | undefined): text is string {
  return text !== undefined && text.includes(" ");
}

export function serverSentence(error: ServerError, streamId: string, role: Role): Sentence {
  const entry = Object.hasOwn(SERVER, error.definition) ? SERVER[error.definition] : undefined;
  const own: Sentence = entry
    ? entry(error.streamId ?? streamId, role)
    : { text: `The server refused: ${error.definition.replaceAll("_", " ") || "it gave no reason"}.` };
  if (!isSentence(error.information)) return own;
  const said = error.information.charAt(0).toUpperCase() + error.information.slice(1);
  return { ...own, advice: /[.!?]$/.test(said) ? said : `${said}.` };
}

/** What the browser's refusal of camera, microphone or screen means. */
export function captureSentence(error: unknown, what: "camera" | "screen"): Sentence {
  const name = error instanceof Error ? error.name : "";
  const screen = what === "screen";
  switch (name) {
    case "InsecureContext":
      return {
        text: "Browsers give the camera only to pages opened over https, or on this very machine.",
        advice: "Open this page with https:// in front, or use http://localhost if the server runs here.",
      };
    case "NotAllowedError":
    case "SecurityError":
      return screen
        ? { text: "The screen was not shared.", advice: "Choose the screen again and allow it when the browser asks." }
        : {
            text: "The browser does not let this page use the camera and microphone.",
            advice: "Allow them in the address bar, or in the system's privacy settings, then press Start Publishing.",
          };
    case "NotFoundError":
      return {
        text: "No camera and no microphone was found.",
        advice: "Connect one, or choose Screen as the picture, then press Start Publishing.",
      };
    case "NotReadableError":
    case "AbortError":
      return {
        text: screen ? "The screen could not be captured." : "The camera or microphone is busy or not working.",
        advice: "Close other programs that use it and try again.",
      };
    case "OverconstrainedError":
      return {
        text: "The chosen device cannot deliver this resolution.",
        advice: "Choose another device or resolution.",
      };
    case "NotSupportedError":
    case "TypeError":
      return screen
        ? { text: "This browser cannot share the screen.", advice: "Use a desktop browser, or publish the camera." }
        : { text: "This browser cannot open a camera.", advice: "Try a current Chrome, Firefox, Edge or Safari." };
    default:
      return {
        text: `The ${what} could not be opened (${name || "no reason given"}).`,
        advice: "Try again, or reload the page.",
      };
  }
}

/** What goes wrong between browser and server without the server saying so. */
export const LOCAL = {
  noWebRtc: {
    text: "This browser has no WebRTC.",
    advice: "Use a current Chrome, Firefox, Edge or Safari.",
  },
  unreachable: {
    text: "The server cannot be reached.",
    advice: "Check your connection and the address. This page keeps trying.",
  },
  connectionLost: {
    text: "The connection to the server was lost.",
    advice: "Reconnecting; nothing to do.",
  },
  serverStopping: {
    text: "This server is about to stop.",
    advice: "Moving to another one; nothing to do.",
  },
  noAnswer: {
    text: "The server did not answer.",
    advice: "This page tries again by itself.",
  },
  iceFailed: {
    text: "The media connection could not be made.",
    advice: "A firewall may block UDP to the server (usually ports 50000 to 60000). This page tries again by itself.",
  },
  iceShaky: {
    text: "The network is interrupted.",
    advice: "Waiting for it to come back.",
  },
  noMediaYet: {
    text: "Connected, but no picture or sound has arrived yet.",
    advice: "The publisher may be starting, or a firewall may block UDP. This page tries again by itself.",
  },
  mediaStopped: {
    text: "Nothing has arrived for a moment.",
    advice: "The publisher may have lost its network. Playing goes on when it returns.",
  },
  badDescription: {
    text: "Browser and server could not agree on how to send the media.",
    advice: "Reload the page. If it stays, try another browser and tell the operator.",
  },
} as const satisfies Record<string, Sentence>;

export function notice(tone: Tone, sentence: Sentence): Notice {
  return { tone, text: sentence.text, advice: sentence.advice };
}

/** Whether a notice speaks of the socket alone, and so is out of date once the socket is open again. */
export function aboutTheSocket(said: Notice): boolean {
  return said.text === LOCAL.unreachable.text || said.text === LOCAL.connectionLost.text;
}
