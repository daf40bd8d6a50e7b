// `Math.random`, with a seed of its own in each instance: the engine's has a seed that would be part of the snapshot.

/** The state of xoshiro128**; unset until the first number of an instance. */
let state: Uint32Array | undefined;

Object.defineProperty(Math, "random", {
  value: function random(): number {
    state ??= Uint32Array.of(...native.randomSeed(), ...native.randomSeed());
    // 53 bits of two steps make a number.
    return (step(state) * 2 ** 21 + (step(state) >>> 11)) * 2 ** -53;
  },
  writable: true,
  configurable: true,
});

function step(state: Uint32Array): number {
  let [a, b, c, d] = state as unknown as [number, number, number, number];
  const scaled = Math.imul(b, 5);
  const result = Math.imul((scaled << 7) | (scaled >>> 25), 9) >>> 0;
  const shifted = b << 9;
  c ^= a;
  d ^= b;
  b ^= c;
  a ^= d;
  c ^= shifted;
  d = (d << 11) | (d >>> 21);
  state[0] = a;
  state[1] = b;
  state[2] = c;
  state[3] = d;
  return result;
}
