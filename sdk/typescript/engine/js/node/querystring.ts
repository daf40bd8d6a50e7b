// `node:querystring`.
declare const module: { exports: unknown };

type Values = Record<string, string | string[]>;

function parse(text: string): Values {
  const found: Values = Object.create(null);
  for (const [name, value] of new URLSearchParams(text)) {
    const before = found[name];
    found[name] = before === undefined ? value : [before, value].flat();
  }
  return found;
}

function stringify(values: Record<string, unknown>): string {
  const pairs = Object.entries(values).flatMap(([name, value]) => [value].flat().map((each) => [name, each === undefined || each === null ? "" : String(each)]));
  return pairs.map((pair) => pair.map((part) => encodeURIComponent(part as string)).join("=")).join("&");
}

module.exports = { decode: parse, encode: stringify, escape: encodeURIComponent, parse, stringify, unescape: decodeURIComponent };
