// The platform script. It is evaluated once, before the snapshot; `native` is its parameter.
import "./web/index.ts";
import "./crypto/index.ts";

/** Evaluates the app of a build. */
export function build(): void {}
