// `FormData`, and its two serializations.
import { Blob, blobBytes, File, isBlob } from "./blob.ts";
import { joined } from "./bytes.ts";
import { defineInterface, ENTRIES, KEYS, need, pairIterators, usv, VALUES } from "./define.ts";

export type FormValue = string | File;
const iterator = pairIterators("FormData");

/** A form of these entries. */
export let formOf: (names: string[], values: FormValue[]) => FormData;
export let isForm: (value: unknown) => value is FormData;
let listsOf: (form: FormData) => [names: string[], values: FormValue[]];

class FormData {
  #names: string[] = [];
  #values: FormValue[] = [];

  constructor(form: undefined = undefined) {
    if (form !== undefined) throw new TypeError("FormData constructor: Argument 1 could not be converted to: undefined.");
  }

  static {
    formOf = (names, values) => {
      const form = new FormData();
      form.#names = names;
      form.#values = values;
      return form;
    };
    isForm = (value): value is FormData => typeof value === "object" && value !== null && #names in value;
    listsOf = (form) => [form.#names, form.#values];
  }

  append(name: string, value: string | Blob, fileName: string | undefined = undefined): void {
    this.#names;
    need(2, arguments.length, "FormData.append");
    const entry = entryOf(value, fileName, arguments.length > 2, "FormData.append");
    this.#names.push(usv(name));
    this.#values.push(entry);
  }

  delete(name: string): void {
    this.#names;
    need(1, arguments.length, "FormData.delete");
    this.#remove(usv(name), 0);
  }

  get(name: string): FormValue | null {
    this.#names;
    need(1, arguments.length, "FormData.get");
    const at = this.#names.indexOf(usv(name));
    return at < 0 ? null : (this.#values[at] as FormValue);
  }

  getAll(name: string): FormValue[] {
    this.#names;
    need(1, arguments.length, "FormData.getAll");
    const key = usv(name);
    return this.#values.filter((_, at) => this.#names[at] === key);
  }

  has(name: string): boolean {
    this.#names;
    need(1, arguments.length, "FormData.has");
    return this.#names.includes(usv(name));
  }

  set(name: string, value: string | Blob, fileName: string | undefined = undefined): void {
    this.#names;
    need(2, arguments.length, "FormData.set");
    const entry = entryOf(value, fileName, arguments.length > 2, "FormData.set");
    const key = usv(name);
    const at = this.#names.indexOf(key);
    if (at < 0) {
      this.#names.push(key);
      this.#values.push(entry);
      return;
    }
    this.#values[at] = entry;
    this.#remove(key, at + 1);
  }

  forEach(callback: (value: FormValue, name: string, form: FormData) => void, self: unknown = undefined): void {
    this.#names;
    need(1, arguments.length, "FormData.forEach");
    if (typeof callback !== "function") throw new TypeError("Failed to execute 'forEach' on 'FormData': parameter 1 is not of type 'Function'.");
    for (const [name, value] of this) callback.call(self, value, name, this);
  }

  entries(): IterableIterator<[string, FormValue]> {
    this.#names;
    return iterator(() => [this.#names, this.#values], ENTRIES);
  }

  keys(): IterableIterator<string> {
    this.#names;
    return iterator(() => [this.#names, this.#values], KEYS);
  }

  values(): IterableIterator<FormValue> {
    this.#names;
    return iterator(() => [this.#names, this.#values], VALUES);
  }

  declare [Symbol.iterator]: () => IterableIterator<[string, FormValue]>;

  #remove(name: string, from: number): void {
    for (let at = this.#names.indexOf(name, from); at >= 0; at = this.#names.indexOf(name, at)) {
      this.#names.splice(at, 1);
      this.#values.splice(at, 1);
    }
  }
}
Object.defineProperty(FormData.prototype, Symbol.iterator, { value: FormData.prototype.entries, writable: true, configurable: true });
defineInterface(FormData, "FormData");
export { FormData };

function entryOf(value: unknown, fileName: unknown, hasFileName: boolean, call: string): FormValue {
  if (!isBlob(value)) {
    if (hasFileName) throw new TypeError(`Failed to execute '${call}': parameter 2 is not of type 'Blob'`);
    return usv(value);
  }
  if (value instanceof File && fileName === undefined) return value;
  const name = fileName === undefined ? "blob" : usv(fileName);
  const { lastModified } = value as Partial<File>;
  return new File([value as never], name, { type: value.type, ...(lastModified === undefined ? {} : { lastModified }) });
}

/** A form as `multipart/form-data`: the bytes, and the type with the boundary. */
export function multipart(form: FormData): [Uint8Array<ArrayBuffer>, string] {
  const random = crypto.getRandomValues(new Uint32Array(2));
  const boundary = `----formdata-tidegate-${String(random[0]).padStart(11, "0")}${String(random[1]).padStart(10, "0")}`;
  const pieces: Uint8Array<ArrayBuffer>[] = [];
  const [names, values] = listsOf(form);
  names.forEach((name, at) => {
    const value = values[at] as FormValue;
    const head = `--${boundary}\r\nContent-Disposition: form-data; name="${quoted(name.replace(/\r?\n|\r/g, "\r\n"))}"`;
    if (typeof value === "string") {
      pieces.push(native.utf8Encode(`${head}\r\n\r\n${value.replace(/\r?\n|\r/g, "\r\n")}\r\n`));
    } else {
      const type = value.type || "application/octet-stream";
      pieces.push(native.utf8Encode(`${head}; filename="${quoted(value.name)}"\r\nContent-Type: ${type}\r\n\r\n`));
      pieces.push(blobBytes(value as never), native.utf8Encode("\r\n"));
    }
  });
  pieces.push(native.utf8Encode(`--${boundary}--\r\n`));
  return [joined(pieces), `multipart/form-data; boundary=${boundary}`];
}

function quoted(text: string): string {
  return text.replace(/\n/g, "%0A").replace(/\r/g, "%0D").replace(/"/g, "%22");
}

/** Parses a body of one of the two types of forms. */
export function parseForm(bytes: Uint8Array<ArrayBuffer>, contentType: string | null): FormData {
  const type = (contentType ?? "").split(";", 1)[0]?.trim().toLowerCase();
  if (type === "application/x-www-form-urlencoded") {
    const [names, values] = native.queryPairs(bytes);
    return formOf(names, values);
  }
  if (type !== "multipart/form-data") {
    throw new TypeError('Content-Type was not one of "multipart/form-data" or "application/x-www-form-urlencoded".');
  }
  const boundary = /;\s*boundary=(?:"([^"]*)"|([^;\s]*))/i.exec(contentType as string);
  const parts = native.multipartParse(bytes, boundary?.[1] ?? boundary?.[2] ?? missingBoundary());
  const names: string[] = [];
  const values: FormValue[] = [];
  for (let at = 0; at < parts.length; at += 4) {
    const [name, fileName, partType, body] = parts.slice(at, at + 4) as [string, string | undefined, string | undefined, Uint8Array<ArrayBuffer>];
    names.push(name);
    values.push(typeof fileName === "string" ? new File([body], fileName, { type: partType ?? "text/plain" }) : native.utf8Decode(body, false, false));
  }
  return formOf(names, values);
}

function missingBoundary(): never {
  throw new TypeError("Failed to parse body as FormData.");
}
