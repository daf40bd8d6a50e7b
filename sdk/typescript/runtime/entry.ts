// The exports of the component. The top level runs once, at build; every decision has its own instance.
import "../platform/index.ts";
import "tidegate:polyfills";
import app from "tidegate:app";
import * as answer from "tidegate:policy/answer@0.1.0";
import * as context from "tidegate:policy/context@0.1.0";
import * as lookup from "tidegate:policy/lookup@0.1.0";
import * as settings from "tidegate:policy/settings@0.1.0";
import * as tokens from "tidegate:policy/tokens@0.1.0";
import { setHost } from "../src/host.ts";
import { hostAtBuild, preinitialize } from "./preinitialize.ts";
import { decide, warm, type WitRequest } from "../src/decide.ts";
import { handlerOf, type Handler } from "../src/handler.ts";
import { Modules } from "./modules.ts";
import { quietly, startConsole } from "./console.ts";
import { startProcess } from "./process.ts";

const modules = new Modules(app);
let handler: Promise<Handler> | undefined;

/** Evaluates the remaining top-level code and returns the app's handler. */
function ready(): Promise<Handler> {
  handler ??= quietly(() => modules.evaluate()).then(handlerOf);
  return handler;
}

/** Runs at build. */
async function build(): Promise<void> {
  const print = console.log.bind(console);
  setHost(hostAtBuild(() => {}, () => {}));
  startProcess();
  startConsole();
  await warm();
  await preinitialize(app, modules, print);
  setHost({ answer, context, lookup, settings, tokens });
}

void build();

export const authorizer = {
  authorize: (request: WitRequest, channels: string[]) => decide(ready, request, channels),
};

export const preparation = {
  async prepare() {
    await warm();
    // The error is raised again, and logged, when a client's request is decided.
    await ready().catch(() => {
      handler = undefined;
      modules.forget();
    });
  },
};
