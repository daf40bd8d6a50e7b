// `node:util/types`.
declare const module: { exports: unknown };
declare function require(name: string): { types: object };

module.exports = require("./util.ts").types;
