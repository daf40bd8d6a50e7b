import { blake3 } from "@noble/hashes/blake3.js";
import { hmac } from "@noble/hashes/hmac.js";
import { sha256, sha512 } from "@noble/hashes/sha2.js";
import { sha3_256 } from "@noble/hashes/sha3.js";
import { bytesToHex, utf8ToBytes } from "@noble/hashes/utils.js";
import { allow, reject, settings, type Middleware } from "@tidegate/policy";

export const middleware: Middleware = ({ request }) => {
  const [user = "", tag = ""] = (request.headers.get("authorization")?.slice("Bearer ".length) ?? "").split(".");
  if (tag !== bytesToHex(hmac(sha256, utf8ToBytes(settings.get("SECRET")!), utf8ToBytes(user)))) return reject(401, "Unauthorized");
  const hashes = [sha512, sha3_256, blake3].map((hash) => bytesToHex(hash(utf8ToBytes(user))).slice(0, 8));
  return allow({ subject: user, headers: { "x-hashes": hashes.join() } });
};
