// Evaluated at top level, in every instance.
export const audience = process.env.AUDIENCE;
export const born = { random: Math.random(), uuid: crypto.randomUUID(), at: Date.now() };
export const bytes = crypto.getRandomValues(new Uint8Array(8));
