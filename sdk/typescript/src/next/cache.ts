// `next/cache` for middlewares of Next.js apps: an instance has no cache, so each decision calls the function.

/** The function itself. */
export function unstable_cache<Arguments extends unknown[], Result>(call: (...args: Arguments) => Promise<Result>): (...args: Arguments) => Promise<Result> {
  return call;
}

export function unstable_noStore(): void {}
export function cacheLife(): void {}
export function cacheTag(): void {}

/** Throws: a policy cannot reach the cache of the app. */
export function revalidateTag(): never {
  throw new Error("a policy cannot revalidate the cache of the app");
}

/** Throws: a policy cannot reach the cache of the app. */
export function revalidatePath(): never {
  return revalidateTag();
}
