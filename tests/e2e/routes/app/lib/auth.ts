import { importSPKI, jwtVerify } from "jose";
import { z } from "zod";
import { audience } from "./config";

const Claims = z.object({ sub: z.string().min(1), roles: z.array(z.enum(["admin", "member"])).default([]) });

export type Session = z.infer<typeof Claims>;

export async function verify(token: string, spki: string, alg: string): Promise<Session> {
  const { payload } = await jwtVerify(token, await importSPKI(spki, alg), { audience });
  return Claims.parse(payload);
}

export async function hmac(secret: string, text: string): Promise<string> {
  const encoder = new TextEncoder();
  const key = await crypto.subtle.importKey("raw", encoder.encode(secret), { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
  const bytes = new Uint8Array(await crypto.subtle.sign("HMAC", key, encoder.encode(text)));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
