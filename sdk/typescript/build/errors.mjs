/** What the author of a policy can put right; any other error is ours. */
export class BuildError extends Error {}
