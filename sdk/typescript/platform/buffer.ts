// `Buffer`, for packages that take it for granted.
import { Buffer } from "buffer/";
import { replaceGlobal } from "./patch.ts";

replaceGlobal("Buffer", Buffer);
