// The frame of a page: its head, the way to the other page, the main part.

import type { ComponentChildren } from "preact";
import { appName } from "../page_address";

export function Shell({ here, children }: { here: "publish" | "play"; children: ComponentChildren }) {
  const root = location.pathname.includes("/samples/") ? "../" : "./";
  const id = new URLSearchParams(location.search).get("id");
  const query = id ? `?id=${encodeURIComponent(id)}` : "";
  const current = (page: string) => (page === here ? ({ "aria-current": "page" } as const) : {});
  return (
    <>
      <header class="head">
        <a class="brand" href={root} aria-label="Start page">
          <svg viewBox="0 0 32 32" width="28" height="28" aria-hidden="true">
            <rect width="32" height="32" rx="9" class="brand-ground" />
            <circle cx="10" cy="16" r="3.5" class="brand-mark" />
            <path d="M16 9.5a9 9 0 0 1 0 13M21 6.5a14 14 0 0 1 0 19" class="brand-wave" />
          </svg>
          <span>{appName(location.pathname)}</span>
        </a>
        <nav aria-label="Pages">
          <a href={`${root}${query}`} {...current("publish")}>
            Publish
          </a>
          <a href={`${root}player.html${query}`} {...current("play")}>
            Play
          </a>
        </nav>
      </header>
      <main>{children}</main>
    </>
  );
}
