// `Buffer`, for packages that require it.
import { Buffer } from "buffer/";
import { replaceGlobal } from "./patch.ts";

replaceGlobal("Buffer", Buffer);
