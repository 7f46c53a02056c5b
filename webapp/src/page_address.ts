// What a page reads from its own address: the application, the stream, the credentials. It never changes the address.

/** The application a page belongs to when its address names none (a development server). */
const DEFAULT_APP = "WebRTCAppEE";

/** The stream a page is about when its address names none. */
export const DEFAULT_STREAM = "stream1";

/** Characters a stream id may have. */
const STREAM_ID = /^[A-Za-z0-9_.-]+$/;

export interface PageParameters {
  /** From `id` or `name`; undefined when the address has neither. */
  readonly streamId: string | undefined;
  readonly token: string | undefined;
  readonly subscriberId: string | undefined;
  readonly subscriberCode: string | undefined;
  readonly streamName: string | undefined;
  readonly mainTrack: string | undefined;
  readonly metaData: string | undefined;
  /** `autoplay=false` is the only way to say no. */
  readonly autoplay: boolean;
  readonly mute: boolean;
}

export function pageParameters(search: string): PageParameters {
  const query = new URLSearchParams(search);
  const text = (...names: string[]): string | undefined => {
    for (const name of names) {
      const value = query.get(name)?.trim();
      if (value) return value;
    }
    return undefined;
  };
  return {
    streamId: text("id", "name"),
    token: text("token"),
    subscriberId: text("subscriberId"),
    subscriberCode: text("subscriberCode"),
    streamName: text("streamName"),
    mainTrack: text("mainTrack"),
    metaData: text("metaData"),
    autoplay: query.get("autoplay") !== "false",
    // A bare `&mute` means yes.
    mute: query.has("mute") && query.get("mute") !== "false",
  };
}

/** The first part of the path, as in `/WebRTCAppEE/player.html`. */
export function appName(pathname: string): string {
  const parts = pathname.split("/").filter((part) => part !== "");
  const first = parts[0];
  if (first === undefined || first.endsWith(".html") || first === "samples") return DEFAULT_APP;
  return first;
}

/** `target` is for a balancer in front: it sends publishers to origins and viewers to edges. */
export function socketAddress(
  page: Pick<Location, "protocol" | "host" | "pathname">,
  target: "origin" | "edge",
): string {
  const scheme = page.protocol === "https:" ? "wss" : "ws";
  return `${scheme}://${page.host}/${appName(page.pathname)}/websocket?target=${target}`;
}

/** Why an id cannot be used, as a sentence; undefined when it can. */
export function streamIdProblem(id: string): string | undefined {
  if (id === "") return "Type a stream name first.";
  if (!STREAM_ID.test(id)) {
    return "A stream name may have letters, digits, dots, dashes and underscores only.";
  }
  return undefined;
}

/** Where viewers watch `id`: on this host, or where the page's `ams-play-base` says. */
export function playAddress(id: string, page: Pick<Location, "href">, base?: string): string {
  // Pages below `samples/` stand one level deeper.
  const here = new URL(page.href);
  here.search = "";
  here.hash = "";
  here.pathname = here.pathname.replace(/(samples\/)?[^/]*$/, "");
  const address = new URL("player.html", base || here.href);
  address.searchParams.set("id", id);
  return address.href;
}
