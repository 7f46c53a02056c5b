import assert from "node:assert/strict";
import { test } from "node:test";
import { readMessage } from "../src/signalling";

test("what is not a message to us is dropped", () => {
  const rows = [
    "",
    "null",
    "7",
    '"x"',
    "[]",
    "{}",
    "{",
    '{"command":"pong"}',
    '{"command":"later"}',
    '{"command":7}',
    '{"command":"takeConfiguration","streamId":"a","type":"pranswer","sdp":"v=0"}',
  ];
  for (const text of rows) assert.equal(readMessage(text), undefined, text);
});

test("nulls and wrong types do no harm", () => {
  assert.deepEqual(readMessage('{"command":"start","streamId":"a","subscriberId":null}'), {
    kind: "start",
    streamId: "a",
  });
  assert.deepEqual(readMessage('{"command":"takeCandidate","streamId":"a","label":"1","candidate":null}'), {
    kind: "candidate",
    streamId: "a",
    label: 0,
    candidate: "",
  });
  assert.deepEqual(
    readMessage('{"command":"streamInformation","streamId":"a","streamInfo":[null,{"streamHeight":"x"}]}'),
    {
      kind: "stream-information",
      streamId: "a",
      renditions: [{ streamWidth: 0, streamHeight: 0, videoBitrate: 0, audioBitrate: 0 }],
    },
  );
});

test("an error carries its reason", () => {
  assert.deepEqual(
    readMessage(
      '{"command":"error","error_code":"404","definition":"no_stream_exist","streamId":"a","information":"r"}',
    ),
    { kind: "error", error: { definition: "no_stream_exist", streamId: "a", information: "r" } },
  );
});

test("ice servers: stun alone, turn with its credentials, nothing when nothing is set", () => {
  const servers = (fields: object) => readMessage(JSON.stringify({ command: "iceServerConfig", ...fields }));
  assert.deepEqual(servers({ stunServerUri: "stun:s:3478" }), {
    kind: "ice-servers",
    servers: [{ urls: "stun:s:3478" }],
  });
  assert.deepEqual(servers({ stunServerUri: "turn:t", turnServerUsername: "u", turnServerCredential: "p" }), {
    kind: "ice-servers",
    servers: [{ urls: "turn:t", username: "u", credential: "p" }],
  });
  for (const uri of [undefined, null, "", "http://x"]) {
    assert.deepEqual(servers({ stunServerUri: uri }), { kind: "ice-servers", servers: [] });
  }
});
