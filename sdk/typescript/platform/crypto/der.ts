// The subset of DER that public and private keys need.
import { fail } from "./key.ts";

/** An element: its tag and its content. */
export interface Element {
  tag: number;
  bytes: Uint8Array;
}

const SEQUENCE = 0x30;
const OBJECT_ID = 0x06;
const BIT_STRING = 0x03;
/** The tag of an octet string. */
export const OCTET_STRING = 0x04;

/** Parses the sequence of elements in `bytes`. */
export function elements(bytes: Uint8Array): Element[] {
  const found: Element[] = [];
  for (let at = 0; at < bytes.length; ) {
    const tag = bytes[at++] as number;
    let length = bytes[at++] as number;
    if (length > 0x80) {
      const end = at + (length & 0x7f);
      for (length = 0; at < end; at++) length = length * 256 + (bytes[at] as number);
    }
    if (!(at + length <= bytes.length)) throw malformed();
    found.push({ tag, bytes: bytes.subarray(at, at + length) });
    at += length;
  }
  return found;
}

/** Returns the content of an element, which has to have that tag. */
export function only(element: Element | undefined, tag: number): Uint8Array {
  if (element?.tag !== tag) throw malformed();
  return element.bytes;
}

/** The elements of the sequence that `bytes` encodes. */
export function sequence(bytes: Uint8Array): Element[] {
  return elements(only(elements(bytes)[0], SEQUENCE));
}

/** The object ids of a public key's algorithm, as hexadecimal, and the key. */
export function publicKey(spki: Uint8Array): { ids: string[]; key: Uint8Array } {
  const [algorithm, key] = sequence(spki);
  return { ids: objectIds(algorithm), key: bits(key) };
}

/** The object ids of a private key's algorithm, as hexadecimal, and the key. */
export function privateKey(pkcs8: Uint8Array): { ids: string[]; key: Uint8Array } {
  const [, algorithm, key] = sequence(pkcs8);
  return { ids: objectIds(algorithm), key: only(key, OCTET_STRING) };
}

/** The content of the octet string that `bytes` encodes. */
export function octets(bytes: Uint8Array): Uint8Array {
  return only(elements(bytes)[0], OCTET_STRING);
}

/** The content of the bit string that `bytes` encodes. */
export function bitString(bytes: Uint8Array): Uint8Array {
  return bits(elements(bytes)[0]);
}

/** The first byte is the number of unused bits, which has to be 0. */
function bits(element: Element | undefined): Uint8Array {
  return only(element, BIT_STRING).subarray(1);
}

function objectIds(algorithm: Element | undefined): string[] {
  return elements(only(algorithm, SEQUENCE))
    .filter(({ tag }) => tag === OBJECT_ID)
    .map(({ bytes }) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join(""));
}

function malformed(): DOMException {
  return fail("DataError", "the key is not in the given format");
}
