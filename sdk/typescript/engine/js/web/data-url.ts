// `data:` URLs.

/** The type and the bytes of a serialized `data:` URL. */
export function dataUrl(url: string): { type: string; bytes: Uint8Array<ArrayBuffer> } | undefined {
  const text = (url.split("#", 1)[0] as string).slice("data:".length);
  const comma = text.indexOf(",");
  if (comma < 0) return undefined;
  let type = text.slice(0, comma).replace(/^[\t\n\f\r ]+|[\t\n\f\r ]+$/g, "");
  let bytes = percentDecoded(text.slice(comma + 1));
  const base64 = /; *base64$/i.exec(type);
  if (base64) {
    type = type.slice(0, base64.index);
    try {
      bytes = Uint8Array.from(atob(native.latin1(bytes)), (char) => char.charCodeAt(0));
    } catch {
      return undefined;
    }
  }
  if (type.startsWith(";")) type = `text/plain${type}`;
  return { type: /^[^\s;/]+\/[^\s;/]+/.test(type) ? type : "text/plain;charset=US-ASCII", bytes };
}

function percentDecoded(text: string): Uint8Array<ArrayBuffer> {
  const encoded = native.utf8Encode(text);
  const out = new Uint8Array(encoded.length);
  let length = 0;
  for (let at = 0; at < encoded.length; at++) {
    const hex = encoded[at] === 0x25 ? text.slice(at + 1, at + 3) : "";
    const isEscape = /^[0-9a-f]{2}$/i.test(hex);
    out[length++] = isEscape ? parseInt(hex, 16) : (encoded[at] as number);
    if (isEscape) at += 2;
  }
  return out.slice(0, length);
}
