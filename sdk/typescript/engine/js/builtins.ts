// Modules of the platform that an app's modules require by these ids, so that a component has one copy of each.
import * as policy from "../../src/index.ts";
import * as headers from "../../src/next/headers.ts";
import * as server from "../../src/next/server.ts";
import * as realtime from "../../src/realtime.ts";

export const builtins: Record<string, object | undefined> = {
  // Plain objects, because a getter per export costs time in each decision.
  "tidegate:policy": { ...policy },
  "tidegate:realtime": { ...realtime },
  "tidegate:next/headers": { ...headers },
  "tidegate:next/server": { ...server },
};
