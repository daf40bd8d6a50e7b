// The libraries below try whether there is randomness when they load, which is at build, where none may be had. What they get then
// they throw away.
export const put = Object.getOwnPropertyDescriptor(crypto, "getRandomValues");
Object.defineProperty(crypto, "getRandomValues", { value: (array: unknown) => array, configurable: true });
