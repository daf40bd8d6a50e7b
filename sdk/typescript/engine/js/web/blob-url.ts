// URLs of blobs, which `fetch` reads.
const blobs = new Map<string, Blob>();

/** A new URL of a blob. */
export function blobUrl(blob: Blob): string {
  if (!(blob instanceof globalThis.Blob)) throw new TypeError("The \"obj\" argument must be an instance of Blob.");
  const url = `blob:nodedata:${globalThis.crypto.randomUUID()}`;
  blobs.set(url, blob);
  return url;
}

/** Forgets the blob of a URL. */
export function revokeBlobUrl(url: string): void {
  blobs.delete(url);
}

/** The blob of a URL. */
export function blobOfUrl(url: string): Blob | undefined {
  return blobs.get(url);
}
