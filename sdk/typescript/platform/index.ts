// What StarlingMonkey lacks of the web's standards, or does differently from Node, put right before anything else runs.
import "./abort.ts";
import "./encoding.ts";
import "./fetch.ts";
import "./streams.ts";
import "./timers.ts";
import "./url.ts";
