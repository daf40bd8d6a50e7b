import { readFileSync } from "node:fs";

export const middleware = () => new Response(readFileSync("words.txt", "utf8"));
