// Polyfills for web standards that StarlingMonkey lacks or that differ from Node. They are installed before any other code runs.
import "./abort.ts";
import "./encoding.ts";
import "./fetch.ts";
import "./streams.ts";
import "./timers.ts";
import "./url.ts";
