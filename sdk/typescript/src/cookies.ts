// Cookies of a request.

/** The value of the first cookie with this name, undecoded. Parts that are not `name=value` are skipped. */
export function cookie(request: Request, name: string): string | undefined {
  for (const pair of (request.headers.get("cookie") ?? "").split(";")) {
    const equals = pair.indexOf("=");
    if (equals >= 0 && trim(pair.slice(0, equals)) === name) return text(trim(pair.slice(equals + 1)));
  }
  return undefined;
}

function trim(value: string): string {
  return value.replace(/^[ \t\r\n\f]+|[ \t\r\n\f]+$/g, "");
}

/** Each character of a header is a byte. The bytes are decoded as UTF-8, unless all are ASCII. */
function text(value: string): string {
  if (!/[\x80-\xff]/.test(value)) return value;
  return new TextDecoder().decode(Uint8Array.from(value, (character) => character.charCodeAt(0)));
}
