// `node:timers`.
declare const module: { exports: unknown };

module.exports = { clearImmediate, clearInterval, clearTimeout, setImmediate, setInterval, setTimeout };
