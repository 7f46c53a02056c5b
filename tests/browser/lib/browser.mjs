// Starts a real browser with fake camera and microphone, and opens pages that are watched.
//
// Never downloads a browser: Debian's are used. Every launch has an empty profile of its own that goes away.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import puppeteer from "puppeteer-core";
import { atEnd } from "./driver.mjs";
import { installProbe } from "./probe.mjs";

const here = (name) => fileURLToPath(new URL(name, import.meta.url));

const CHROMIUM_FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--use-fake-device-for-media-stream",
  "--use-fake-ui-for-media-stream",
  "--autoplay-policy=no-user-gesture-required",
  "--allow-loopback-in-peer-connection",
  // A page in the background goes on drawing: several run at once here.
  "--disable-background-timer-throttling",
  "--disable-renderer-backgrounding",
  "--disable-backgrounding-occluded-windows",
];

const FIREFOX_PREFERENCES = {
  "media.navigator.streams.fake": true,
  "media.navigator.permission.disabled": true,
  "media.peerconnection.ice.obfuscate_host_addresses": false,
  "media.cubeb.force_mock_context": true,
  "media.autoplay.default": 0,
  "media.autoplay.blocking_policy": 0,
  "media.gmp-manager.updateEnabled": false,
  "network.captive-portal-service.enabled": false,
  "network.connectivity-service.enabled": false,
};

/** `kind` is chromium or firefox. */
export async function launch(kind, { flags = [], preferences = {}, width = 1280, height = 800 } = {}) {
  const profile = mkdtempSync(join(tmpdir(), "ams-browser-"));
  atEnd(() => rmSync(profile, { recursive: true, force: true, maxRetries: 5 }));
  const common = { headless: true, userDataDir: profile, timeout: 30_000, defaultViewport: { width, height } };
  const browser =
    kind === "firefox"
      ? await puppeteer.launch({
          ...common,
          browser: "firefox",
          executablePath: here("firefox"),
          extraPrefsFirefox: { ...FIREFOX_PREFERENCES, ...preferences },
          args: flags,
        })
      : await puppeteer.launch({
          ...common,
          browser: "chrome",
          executablePath: here("chromium"),
          pipe: true,
          args: [...CHROMIUM_FLAGS, ...flags],
        });
  atEnd(() => browser.close());
  return browser;
}

/** A page with the probe inside, and with everything it complained about in `complaints`. */
export async function openPage(browser) {
  // A window of its own: the browser stops drawing in a tab that is behind another.
  const page = await browser.newPage({ type: "window" });
  const complaints = [];
  page.on("console", (message) => {
    if (["error", "warn"].includes(message.type())) complaints.push(`${message.type()}: ${message.text()}`);
  });
  page.on("pageerror", (error) => complaints.push(`exception: ${error.message}`));
  page.on("requestfailed", (request) =>
    complaints.push(`request failed: ${request.url()} ${request.failure()?.errorText ?? ""}`),
  );
  page.on("response", (response) => {
    if (response.status() >= 400) complaints.push(`status ${response.status()}: ${response.url()}`);
  });
  await page.evaluateOnNewDocument(installProbe);
  return { page, complaints };
}

/** A page may have been told to go away while it was asked. */
export async function ask(page, question, ...args) {
  try {
    return await page.evaluate(question, ...args);
  } catch (error) {
    return { failed: error.message };
  }
}
