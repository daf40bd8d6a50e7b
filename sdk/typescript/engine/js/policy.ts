// A policy: its build, and the two exports of its component.
import { answer, conversions, type Answer, type Field } from "../../src/decide.ts";
import { cookie } from "../../src/cookies.ts";
import { allow, handle } from "../../src/handle.ts";
import { handlerOf, type Handler } from "../../src/handler.ts";
import { setHost, type Host } from "../../src/host.ts";
import { decoding, lookup } from "../../src/imports.ts";
import { asNextRequest } from "../../src/next/server.ts";
import { quietly } from "./console.ts";
import { logRejections } from "./errors.ts";
import { gateway } from "./host.ts";
import { Modules, type Program } from "./modules.ts";
import { hostAtBuild, preinitialize, type Report } from "./preinitialize.ts";
import { setNodeEnv } from "./process.ts";
import { addModules } from "./stacks.ts";
import { serverRequest } from "./web/request.ts";
import { existingStream, responseHeaders, takeBody } from "./web/response.ts";

// Without the objects, strings, streams and promises of the standard's methods.
conversions.body = (response) => takeBody(response) ?? "";
conversions.stream = (response) => existingStream(response);
conversions.fields = (response) => {
  const [names, values] = responseHeaders(response);
  return names.map((name, at): Field => [name, values[at] as string]);
};

decoding.utf8 = (bytes) => native.utf8Decode(bytes, false, true);

let modules: Modules;
let handler: Promise<Handler> | undefined;
/** The handler, once its promise is fulfilled. */
let evaluated: Handler | undefined;

/** Evaluates the app of a build, as far as it can be evaluated before a request, and returns a report for the build's driver. */
export async function build(json: string): Promise<string> {
  const program: Program = JSON.parse(json);
  await warm();
  addModules(program.modules);
  modules = new Modules(program.entry);
  setNodeEnv(program.nodeEnv);
  const report: Report = await preinitialize(program, modules);
  const exports = modules.evaluated();
  // An error in it is that of each decision.
  if (exports && report.failed.length === 0) handler = Promise.resolve(exports).then(handlerOf);
  evaluated = await handler?.catch(() => (handler = undefined));
  setHost(gateway);
  return JSON.stringify(report);
}

/** Runs the code of a decision except the app's, so that the engine has made the functions and properties that it makes on first use. */
async function warm(): Promise<void> {
  setHost(sampleHost());
  const allowing = handle({ middleware: ({ channels }) => (channels.length === 9 ? undefined : allow({ subject: "warm" })) });
  const rejecting = handle({
    async middleware({ request, channels }) {
      const session = cookie(request, "session");
      const isAdmin = lookup.json<{ id: string }>(`session:${session}`)?.id === session && channels.some((channel) => channel.startsWith("admin-"));
      return isAdmin ? Response.json({ session }) : new Response("Unauthorized", { status: 401, headers: { "content-type": "text/plain" } });
    },
  });
  for (const route of [allowing, rejecting]) {
    handler = Promise.resolve(route);
    await authorizeWarmly();
  }
  handler = undefined;
}

function authorizeWarmly(): Promise<Answer> {
  const url = "https://warm.invalid/api/realtime?channel=warm";
  return authorize("GET", url, ["host", "cookie", "accept"], ["warm.invalid", "a=b; session=c%20d", "text/event-stream"], ["warm"]);
}

/** A host whose store has a session for every key. */
function sampleHost(): Host {
  const host = hostAtBuild(() => {}, () => {});
  return { ...host, lookup: { ...host.lookup, get: () => native.utf8Encode('{"id":"warm"}') } };
}

/** Prepares as an instance does it, after the snapshot was taken. */
export function prepareSample(): Promise<boolean> {
  setHost(sampleHost());
  return prepare();
}

/** Decides about a request as the app does it, after the snapshot was taken. */
export async function decideSample(): Promise<void> {
  await prepareSample();
  await authorizeWarmly();
}

/** Evaluates the remaining top-level code and returns the app's handler. */
function ready(): Promise<Handler> {
  handler ??= quietly(() => modules.evaluate()).then(handlerOf);
  return handler;
}

/** Ahead of a decision. Returns whether that evaluated code. */
export async function prepare(): Promise<boolean> {
  if (evaluated) return false;
  // The error is raised again, and logged, when a client's request is decided.
  evaluated = await ready().catch(() => {
    handler = undefined;
    modules.forget();
  });
  return evaluated !== undefined;
}

/** Decides about a request. Header fields are Latin-1 text. */
export function authorize(method: string, url: string, names: string[], values: string[], channels: string[]): Promise<Answer> {
  const toRequest = () => asNextRequest(serverRequest(method, url, names, values));
  return answer(() => evaluated ?? ready(), toRequest, channels, channels).then(logged);
}

function logged(found: Answer): Answer {
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
