// A real browser, and its page: an app with the unchanged React half of @upstash/realtime.
import { once } from "node:events";
import { createServer } from "node:http";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { chromium } from "playwright-core";

/** Starts Chromium, headless. */
export async function launch() {
  return chromium.launch({
    executablePath: process.env.CHROMIUM || "/usr/bin/chromium",
    headless: true,
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
  });
}

/** Bundles a file of `app/` in memory, and returns the text of one script. */
export async function bundle(file = "main.jsx") {
  const result = await build({
    entryPoints: [fileURLToPath(new URL(`../app/${file}`, import.meta.url))],
    bundle: true,
    write: false,
    format: "iife",
    jsx: "automatic",
    logLevel: "silent",
    define: { "process.env.NODE_ENV": '"production"' },
  });
  return result.outputFiles[0].text;
}

/** Serves the page, with a file of `app/`, on a separate origin: `{origin, stop()}`. */
export async function servePage(file) {
  const script = await bundle(file);
  const html = '<!doctype html><meta charset="utf-8"><title>app</title><div id="root"></div><script src="/app.js"></script>';
  const server = createServer((request, response) => {
    const { pathname } = new URL(request.url, "http://page");
    if (pathname === "/") response.setHeader("content-type", "text/html; charset=utf-8").end(html);
    else if (pathname === "/app.js") response.setHeader("content-type", "text/javascript; charset=utf-8").end(script);
    else response.writeHead(404).end();
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    origin: `http://127.0.0.1:${server.address().port}`,
    async stop() {
      const closed = once(server, "close");
      server.close();
      server.closeAllConnections();
      await closed;
    },
  };
}

/**
 * Opens the app; `session` is the value of the session cookie. Cookies are not bound to a port, so the gateway on another port of
 * 127.0.0.1 gets the cookie, too. Returns the `page`, and functions that return the state of the app.
 */
export async function visit(browser, origin, { api, channels, session }) {
  const context = await browser.newContext();
  if (session !== undefined) {
    await context.addCookies([{ name: "session", value: session, url: "http://127.0.0.1", sameSite: "Lax" }]);
  }
  const page = await context.newPage();
  const console = [];
  page.on("console", (message) => console.push(message.text()));
  page.on("pageerror", (error) => console.push(String(error)));
  /** Status codes of the answers to the app's streams. */
  const answers = [];
  page.on("response", (response) => response.url().startsWith(api) && answers.push(response.status()));
  const query = new URLSearchParams({ api, channels: JSON.stringify(channels) });
  await page.goto(`${origin}/?${query}`);
  return {
    page,
    console,
    answers,
    received: () => page.evaluate(() => window.__received),
    status: () => page.evaluate(() => window.__status),
    statuses: () => page.evaluate(() => window.__statuses),
    setChannels: (names) => page.evaluate((value) => window.__setChannels(value), names),
    close: () => context.close(),
  };
}
