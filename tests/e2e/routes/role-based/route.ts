// The role-based example as the route file of an app: `cargo bench --bench languages` measures it.
import { handle } from "@upstash/realtime";
import { middleware } from "../../../../guest-examples/typescript-role-based/policy";
import { realtime } from "../app/lib/realtime";

export const GET = handle({ realtime, middleware });
