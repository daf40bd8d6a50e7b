/** An error that the author of a policy can correct. Any other error is a defect of the build. */
export class BuildError extends Error {}
