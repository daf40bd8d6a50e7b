// The web platform, installed into the global scope.
export {};
