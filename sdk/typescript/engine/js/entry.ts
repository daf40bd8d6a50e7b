// The platform script. It is evaluated once, before the snapshot; `native` is its parameter. Its exports are called by src/engine.rs.
import "./network.ts";
import "./timers.ts";
import "./web/index.ts";
import "./crypto/index.ts";
import "./random.ts";
import { setHost } from "../../src/host.ts";
import { startConsole } from "./console.ts";
import { gateway } from "./host.ts";
import { startProcess } from "./process.ts";

export { reportError, rejected } from "./errors.ts";
export { networkEvent } from "./network.ts";
export { runTimer } from "./timers.ts";
export { authorize, build, decideSample, neverSettled, prepare, prepareSample } from "./policy.ts";

// Deep enough for the user's own line below those of a package such as zod.
Error.stackTraceLimit = 50;
setHost(gateway);
startConsole();
startProcess();
