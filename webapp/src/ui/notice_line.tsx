// The sentence that says what is going on. Screen readers hear it when it changes; what went wrong, at once.

import type { Notice } from "../sentences";

export function NoticeLine({ notice, id }: { notice: Notice; id?: string }) {
  const bad = notice.tone === "bad";
  const words = (
    <>
      <span class="notice-text">{notice.text}</span>
      {notice.advice ? <span class="notice-advice"> {notice.advice}</span> : null}
    </>
  );
  // Both regions stay in the document: a region that appears together with its text is often not read out.
  return (
    <div id={id} class={`notice notice-${notice.tone}`}>
      <span class="notice-dot" aria-hidden="true" />
      <div role="status">{bad ? null : words}</div>
      <div role="alert">{bad ? words : null}</div>
    </div>
  );
}
