// `node:process`.
declare const module: { exports: unknown };
declare const process: unknown;

module.exports = process;
