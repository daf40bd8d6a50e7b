// `crypto`, installed into the global scope.
export {};
