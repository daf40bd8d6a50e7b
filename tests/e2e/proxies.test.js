// Proxies that compress what they may: the frames of a stream arrive at once, while the stream is open.
import assert from "node:assert/strict";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { get } from "node:http";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { constants, createGunzip } from "node:zlib";
import compression from "compression";
import express from "express";
import { createProxyMiddleware } from "http-proxy-middleware";
import { Child } from "./lib/child.js";
import { Closing } from "./lib/closing.js";
import { startAllowAll } from "./lib/example.js";
import { startRedis } from "./lib/redis.js";
import { inTime, until } from "./lib/until.js";

const NGINX = process.env.NGINX || "/usr/sbin/nginx";

const closing = new Closing();
let dir, gateway;

before(async () => {
  dir = closing.dir();
  const redis = closing.add(await startRedis({ dir }), (it) => it.stop());
  gateway = await startAllowAll(closing, { store: redis.url, dir });
});

after(() => closing.run());

/** Opens a stream through a proxy, as a browser that accepts gzip, and asserts that each frame arrives before the next one is sent. */
async function assertLive(t, channel, to) {
  const headers = { accept: "text/event-stream", "accept-encoding": "gzip, deflate, br" };
  const path = `/api/realtime?channel=${channel}`;
  const request = get({ host: "127.0.0.1", ...to, path, headers, agent: false });
  t.after(() => request.destroy());
  const [response] = await inTime("the head arrives", once(request, "response"));
  assert.equal(response.statusCode, 200);
  const encoding = response.headers["content-encoding"];
  const body = encoding === undefined ? response : response.pipe(createGunzip({ finishFlush: constants.Z_SYNC_FLUSH }));
  request.on("error", () => {});
  body.on("error", () => {});
  assert.ok([undefined, "gzip"].includes(encoding), encoding);
  let text = "";
  body.on("data", (bytes) => (text += bytes));
  const arrives = (part) => until(() => `${part} arrives (${encoding}): ${JSON.stringify(text)}`, () => text.includes(part));
  await arrives("connected");
  for (const data of ["first", "second"]) {
    const response = await fetch(`${gateway.control}/v1/emit`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ channel, event: "e", data }),
    });
    assert.equal(response.status, 200);
    await arrives(data);
  }
  return encoding;
}

describe("the frames of a stream arrive at once", { timeout: 120_000 }, () => {
  test("through Express with compression", async (t) => {
    const app = express();
    app.use(compression());
    app.get("/text", (_, response) => response.type("text/plain").send("x".repeat(10_000)));
    app.use(createProxyMiddleware({ target: gateway.url }));
    const server = app.listen(0, "127.0.0.1");
    t.after(() => {
      server.close();
      server.closeAllConnections();
    });
    await once(server, "listening");
    const { port } = server.address();
    const [text] = await once(get({ port, path: "/text", headers: { "accept-encoding": "gzip" }, agent: false }), "response");
    assert.equal(text.resume().headers["content-encoding"], "gzip", "it compresses others");
    assert.equal(await assertLive(t, "express", { port }), undefined);
  });

  // It does not know `no-transform`, and compresses each frame for itself.
  test("through nginx with gzip for all types", async (t) => {
    const socketPath = join(dir, "nginx.sock");
    const file = join(dir, "nginx.conf");
    const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map((name) => `${name}_temp_path ${dir}/${name};`);
    writeFileSync(file, `daemon off;
master_process off;
pid ${dir}/nginx.pid;
error_log stderr;
events {}
http {
  access_log off;
  ${temporary.join(" ")}
  gzip on;
  gzip_types *;
  server {
    listen unix:${socketPath};
    location / { proxy_pass http://127.0.0.1:${gateway.port}; }
  }
}
`);
    const nginx = new Child("nginx", NGINX, ["-c", file, "-e", "stderr"]);
    t.after(() => nginx.stop());
    const answers = () =>
      new Promise((resolve) => {
        get({ socketPath, path: "/healthz", agent: false }, (response) => resolve(response.resume().statusCode === 200)).on("error", () => resolve(nginx.end));
      });
    await until("nginx answers", answers);
    assert.equal(nginx.end, null, nginx.log());
    assert.equal(await assertLive(t, "nginx", { socketPath }), "gzip");
  });

  // `next build` takes long, so this is a part of the full run.
  if (process.env.TIDEGATE_SOAK === "full") {
    test("through rewrites() of Next.js", async (t) => {
      const cwd = fileURLToPath(new URL("next", import.meta.url));
      const env = { ...process.env, GATE: gateway.url, NEXT_TELEMETRY_DISABLED: "1" };
      const next = (...args) => new Child("next", process.execPath, [join(cwd, "node_modules/next/dist/bin/next"), ...args], { cwd, env });
      const build = next("build");
      assert.equal((await build.exited).code, 0, build.log());
      const server = next("start", "--hostname", "127.0.0.1", "--port", "0");
      t.after(() => server.stop());
      const [, port] = await server.line(/http:\/\/127\.0\.0\.1:(\d+)/);
      await server.line(/Ready/);
      assert.equal(await assertLive(t, "next", { port: Number(port) }), undefined);
    });
  }
});
