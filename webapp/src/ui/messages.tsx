// The box of messages over the data channel: publisher to viewers and back.

import { useRef, useState } from "preact/hooks";
import { Observable } from "../observable";
import { useObservable } from "./hooks";

/** A page left open for days must not grow without end. */
const LINES_MAX = 200;

export interface Line {
  readonly from: "me" | "other" | "page";
  readonly text: string;
}

export class MessageLog {
  readonly lines = new Observable<readonly Line[]>([]);

  add(from: Line["from"], text: string): void {
    this.lines.set([...this.lines.value, { from, text }].slice(-LINES_MAX));
  }
}

export function Messages({ log, send }: { log: MessageLog; send: (text: string) => boolean }) {
  const lines = useObservable(log.lines);
  const [text, setText] = useState("");
  const box = useRef<HTMLTextAreaElement>(null);
  const submit = (event: Event) => {
    event.preventDefault();
    if (text === "") return;
    if (send(text)) {
      log.add("me", text);
      setText("");
    } else {
      log.add("page", "Not sent: there is no connection yet.");
    }
    box.current?.focus();
  };
  return (
    <section class="card" aria-labelledby="messages-title">
      <h2 id="messages-title">Messages</h2>
      <div id="all-messages" class="messages" role="log" tabIndex={0} aria-label="Messages so far">
        {lines.length === 0 ? <p class="quiet">Messages between publisher and viewers appear here.</p> : null}
        {lines.map((line, index) => (
          <p key={index} class={`message message-${line.from}`}>
            {line.from === "page" ? null : <b>{line.from === "me" ? "You: " : "Received: "}</b>}
            {line.text}
          </p>
        ))}
      </div>
      <form class="row" onSubmit={submit}>
        <label class="sr-only" for="dataTextbox">
          Message
        </label>
        <textarea
          id="dataTextbox"
          ref={box}
          rows={1}
          class="grow"
          placeholder="Write a message"
          value={text}
          onInput={(event) => setText(event.currentTarget.value)}
          onKeyDown={(event) => {
            if (event.key === "Enter" && !event.shiftKey && !event.isComposing) submit(event);
          }}
        />
        <button id="send" type="submit">
          Send
        </button>
      </form>
    </section>
  );
}
