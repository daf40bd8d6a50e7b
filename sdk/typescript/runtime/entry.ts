// The component: what the gateway calls. Its top level runs once, at build; from there on every decision is an instance of its own.
import "../platform/index.ts";
import "tidegate:needs";
import app from "tidegate:app";
import * as answer from "tidegate:policy/answer@0.1.0";
import * as context from "tidegate:policy/context@0.1.0";
import * as lookup from "tidegate:policy/lookup@0.1.0";
import * as settings from "tidegate:policy/settings@0.1.0";
import * as tokens from "tidegate:policy/tokens@0.1.0";
import { setHost } from "../src/host.ts";
import { bake, hostAtBuild } from "./bake.ts";
import { decide, warm, type WitRequest } from "../src/decide.ts";
import { handlerOf, type Handler } from "../src/handler.ts";
import { Modules } from "./modules.ts";
import { quietly, startConsole } from "./console.ts";
import { startProcess } from "./process.ts";

const modules = new Modules(app);
let handler: Promise<Handler> | undefined;

/** The app's handler. What top-level code is left is evaluated now. */
function ready(): Promise<Handler> {
  handler ??= quietly(() => modules.evaluate()).then(handlerOf);
  return handler;
}

/** All of the build's part. */
async function build(): Promise<void> {
  const print = console.log.bind(console);
  setHost(hostAtBuild(() => {}, () => {}));
  startProcess();
  startConsole();
  await warm();
  await bake(app, modules, print);
  setHost({ answer, context, lookup, settings, tokens });
}

void build();

export const authorizer = {
  authorize: (request: WitRequest, channels: string[]) => decide(ready, request, channels),
};

export const preparation = {
  async prepare() {
    await warm();
    // It fails again, with its words in the log, when a client asks.
    await ready().catch(() => {
      handler = undefined;
      modules.forget();
    });
  },
};
