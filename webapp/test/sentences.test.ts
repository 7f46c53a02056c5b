import assert from "node:assert/strict";
import { test } from "node:test";
import { captureSentence, LOCAL, SERVER_DEFINITIONS, serverSentence, type Sentence } from "../src/sentences";

/** Every definition that a server of this protocol may send. */
const DEFINITIONS = `noStreamNameSpecified invalidStreamName not_initialized_yet data_store_not_available
  license_suspended_please_renew_license highResourceUsage no_codec_enabled_in_the_server streamIdInUse already_publishing
  already_playing not_allowed_unregistered_streams stream_not_active_or_expired unauthorized_access user_blocked
  viewerLimitReached no_stream_exist publishTimeoutError noPacketReceivedForTimeoutDuration notSetRemoteDescription
  notSetLocalDescription encoderNotOpened encoderBlocked server_error_check_logs mainTrackDBOperationFailed
  main_track_has_max_subtrack_count__not_allowed_to_add_more_subtracks no_room_specified room_not_active_or_expired
  no_active_streams_in_room no_peer_associated_before authenticationTokenNotValid missingParameter`.split(/\s+/);

function isPlain({ text, advice, retryAfterS }: Sentence, name: string): void {
  assert.match(text, /^[A-Z“].*\.$/, `${name}: a whole sentence`);
  assert.doesNotMatch(text.replaceAll("WebRTC", ""), /[a-z]_[a-z]|[a-z][A-Z]|undefined|null/, `${name}: no code words`);
  assert.ok(advice !== undefined || retryAfterS !== undefined, `${name}: says what to do, or does it itself`);
  if (advice !== undefined) assert.match(advice, /^[A-Z].*\.$/, `${name}: advice is a sentence`);
}

test("every definition of the protocol has its own sentence, for both roles", () => {
  assert.deepEqual(new Set(SERVER_DEFINITIONS), new Set(DEFINITIONS));
  for (const definition of DEFINITIONS) {
    for (const role of ["publisher", "viewer"] as const)
      isPlain(serverSentence({ definition }, "stream1", role), definition);
  }
});

test("an unknown definition is still a sentence, and names like those of Object are no trap", () => {
  for (const definition of ["brand_new_trouble", "constructor", "toString", ""]) {
    assert.match(serverSentence({ definition }, "stream1", "viewer").text, /^The server refused: .+\.$/, definition);
  }
});

test("a server that explains itself in words is quoted", () => {
  const said = serverSentence(
    { definition: "unauthorized_access", information: "this node is an edge: publish to http://origin:5080" },
    "stream1",
    "publisher",
  );
  assert.equal(said.advice, "This node is an edge: publish to http://origin:5080.");
});

test("every refusal of camera and screen has a sentence", () => {
  const names = [
    "InsecureContext",
    "NotAllowedError",
    "SecurityError",
    "NotFoundError",
    "NotReadableError",
    "AbortError",
    "OverconstrainedError",
    "NotSupportedError",
    "TypeError",
    "SomethingNew",
  ];
  for (const name of names) {
    for (const what of ["camera", "screen"] as const) {
      const error = Object.assign(new Error("detail"), { name });
      const { text, advice } = captureSentence(error, what);
      assert.match(text, /\.$/, name);
      assert.match(advice ?? "", /\.$/, name);
    }
  }
});

test("every local failure says what to do", () => {
  for (const [name, sentence] of Object.entries(LOCAL)) isPlain(sentence, name);
});
