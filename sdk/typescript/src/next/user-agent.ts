// `userAgent()` of `next/server`: robots, and the usual browsers, systems and devices.

interface Part {
  name?: string;
  version?: string;
}

/** What the header `user-agent` says. */
export interface UserAgent {
  isBot: boolean;
  ua: string;
  browser: Part & { major?: string };
  device: { model?: string; type?: string; vendor?: string };
  engine: Part;
  os: Part;
  cpu: { architecture?: string };
}

const BOT = /bot\b|crawl|spider|slurp|facebookexternalhit|mediapartners-google|ia_archiver|google-inspectiontool|bingpreview|lighthouse/i;

/** The first that matches counts: most browsers name others, too. */
const BROWSERS: [string, RegExp][] = [
  ["Edge", /\b(?:Edge|Edg|EdgA|EdgiOS)\/([\d.]+)/],
  ["Opera", /\b(?:OPR|Opera)\/([\d.]+)/],
  ["Samsung Internet", /\bSamsungBrowser\/([\d.]+)/],
  ["Firefox", /\b(?:Firefox|FxiOS)\/([\d.]+)/],
  ["Chrome", /\b(?:Chrome|CriOS)\/([\d.]+)/],
  ["Mobile Safari", /\bVersion\/([\d.]+) Mobile\/\S+ Safari\//],
  ["Safari", /\bVersion\/([\d.]+) Safari\//],
];

const SYSTEMS: [string, RegExp][] = [
  ["iOS", /\b(?:iPhone|iPad|iPod).*? OS ([\d_]+)/],
  ["Android", /\bAndroid ([\d.]+)/],
  ["Windows", /\bWindows NT ([\d.]+)/],
  ["Mac OS", /\bMac OS X ([\d_.]+)/],
  ["Chrome OS", /\bCrOS \S+ ([\d.]+)/],
  ["Linux", /\bLinux()\b/],
];

/** What a `user-agent` says. */
export function userAgentFromString(ua = ""): UserAgent {
  const browser = first(BROWSERS, ua);
  const os = first(SYSTEMS, ua);
  const [, arm, x64] = /\b(aarch64|arm64)\b|\b(x86_64|x64|Win64|WOW64)\b/i.exec(ua) ?? [];
  const architecture = arm ? "arm64" : x64 ? "amd64" : undefined;
  return {
    isBot: BOT.test(ua),
    ua,
    browser: browser.version ? { ...browser, major: browser.version.split(".")[0] } : browser,
    device: deviceOf(ua),
    engine: engineOf(ua),
    os: os.version ? { ...os, version: os.version.replaceAll("_", ".") } : os,
    cpu: architecture ? { architecture } : {},
  };
}

/** What the header `user-agent` of a request says. */
export function userAgent({ headers }: { headers: Headers }): UserAgent {
  return userAgentFromString(headers.get("user-agent") ?? undefined);
}

function first(patterns: [string, RegExp][], ua: string): Part {
  for (const [name, pattern] of patterns) {
    const found = pattern.exec(ua);
    if (found) return found[1] ? { name, version: found[1] } : { name };
  }
  return {};
}

function deviceOf(ua: string): UserAgent["device"] {
  const apple = /\b(iPhone|iPad|iPod)\b/.exec(ua)?.[1];
  if (apple) return { vendor: "Apple", model: apple, type: apple === "iPad" ? "tablet" : "mobile" };
  if (/\bMacintosh\b/.test(ua)) return { vendor: "Apple", model: "Macintosh" };
  if (/\bAndroid\b/.test(ua)) return { type: /\bMobile\b/.test(ua) ? "mobile" : "tablet" };
  return {};
}

function engineOf(ua: string): Part {
  const chrome = /\bChrome\/([\d.]+)/.exec(ua)?.[1];
  if (chrome) return { name: "Blink", version: chrome };
  const webkit = /\bAppleWebKit\/([\d.]+)/.exec(ua)?.[1];
  if (webkit) return { name: "WebKit", version: webkit };
  const gecko = /\brv:([\d.]+)\).*\bGecko\//.exec(ua)?.[1];
  return gecko ? { name: "Gecko", version: gecko } : {};
}
