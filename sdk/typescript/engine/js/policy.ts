// A policy: its build, and the two exports of its component.
import { answer, conversions, warm, type Answer, type Field } from "../../src/decide.ts";
import { handlerOf, type Handler } from "../../src/handler.ts";
import { setHost } from "../../src/host.ts";
import { asNextRequest } from "../../src/next/server.ts";
import { quietly } from "./console.ts";
import { logRejections } from "./errors.ts";
import { gateway } from "./host.ts";
import { Modules, type Program } from "./modules.ts";
import { hostAtBuild, preinitialize, type Report } from "./preinitialize.ts";
import { setNodeEnv } from "./process.ts";
import { addModules } from "./stacks.ts";
import { headerLists } from "./web/headers.ts";
import { serverRequest } from "./web/request.ts";
import { existingStream, takeBody } from "./web/response.ts";

// Without the strings, streams and promises of the standard's methods.
conversions.body = async (response) => (await takeBody(response)) ?? "";
conversions.stream = (response) => existingStream(response);
conversions.fields = (headers) => {
  const [names, values] = headerLists(headers);
  return names.map((name, at): Field => [name, values[at] as string]);
};

let modules: Modules;
let handler: Promise<Handler> | undefined;

/** Evaluates the app of a build, as far as it can be evaluated before a request, and returns a report for the build's driver. */
export async function build(json: string): Promise<string> {
  const program: Program = JSON.parse(json);
  setHost(hostAtBuild(() => {}, () => {}));
  await warm();
  addModules(program.modules);
  modules = new Modules(program.entry);
  setNodeEnv(program.nodeEnv);
  const report: Report = await preinitialize(program, modules);
  const exports = modules.evaluated();
  // An error in it is that of each decision.
  if (exports && report.failed.length === 0) handler = Promise.resolve(exports).then(handlerOf);
  await handler?.catch(() => (handler = undefined));
  setHost(gateway);
  return JSON.stringify(report);
}

/** Evaluates the remaining top-level code and returns the app's handler. */
function ready(): Promise<Handler> {
  handler ??= quietly(() => modules.evaluate()).then(handlerOf);
  return handler;
}

/** Ahead of a decision. */
export async function prepare(): Promise<void> {
  // The error is raised again, and logged, when a client's request is decided.
  await ready().catch(() => {
    handler = undefined;
    modules.forget();
  });
}

/** Decides about a request. Header fields are Latin-1 text. */
export async function authorize(method: string, url: string, names: string[], values: string[], channels: string[]): Promise<Answer> {
  const found = await answer(ready, () => asNextRequest(serverRequest(method, url, names, values)), channels);
  logRejections();
  return found;
}

/** The answer if the promise of a decision never settles. */
export function neverSettled(): Answer {
  const text = "the policy waits for a promise that never settles";
  console.error(text);
  logRejections();
  gateway.answer.reason(text);
  return { status: 500, headers: [["content-type", "text/plain"]], body: "Internal Server Error" };
}
