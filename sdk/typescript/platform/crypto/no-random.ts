// The libraries imported next test the randomness when they are loaded, at build, where it must not be used. They discard the result, so
// `getRandomValues` does nothing meanwhile.
export const original = Object.getOwnPropertyDescriptor(crypto, "getRandomValues");
Object.defineProperty(crypto, "getRandomValues", { value: (array: unknown) => array, configurable: true });
