import nacl from "tweetnacl";
import { allow, cookie, reject, settings, type Middleware } from "@tidegate/policy";

const bytes = (text: string) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));

export const middleware: Middleware = ({ request }) => {
  const [nonce = "", sealed = ""] = (cookie(request, "session") ?? "").split(".");
  try {
    const opened = nacl.secretbox.open(bytes(sealed), bytes(nonce), bytes(settings.get("KEY")!));
    return opened ? allow({ subject: new TextDecoder().decode(opened) }) : reject(401, "Unauthorized", "another key");
  } catch (error) {
    return reject(401, "Unauthorized", String(error));
  }
};
