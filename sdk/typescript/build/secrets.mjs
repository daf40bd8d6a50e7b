// Detection of secrets in the app's source: anyone who has the component can read them.

/** The kind of secret that only the name of a variable or member reveals. */
const NAMED = "a secret, because of its name";

const SECRETS = [
  ["a private key", /-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----(?:\s|\\[nr])*[A-Za-z0-9+/]{20}/],
  ["a secret key of Stripe", /\b[sr]k_live_[0-9a-zA-Z]{16,}/],
  ["a token of GitHub", /\b(?:gh[pousr]_[0-9A-Za-z]{36,}|github_pat_[0-9A-Za-z_]{50,})/],
  ["an access key of AWS", /\b(?:AKIA|ASIA)[0-9A-Z]{16}\b/],
  ["a token of Slack", /\bxox[abprs]-[0-9A-Za-z-]{10,}/],
  ["a key of OpenAI or Anthropic", /\bsk-(?:ant-|proj-)?[0-9A-Za-z_-]{32,}/],
  ["a key of Google", /\bAIza[0-9A-Za-z_-]{35}\b/],
  ["a password in a URL", /\b(?:rediss?|postgres(?:ql)?|mysql|mongodb(?:\+srv)?|amqps?):\/\/[^\s:@/"'`]*:[^\s@/"'`$]+@/],
  [NAMED, /\b\w*(?:secret|password|passwd|private_?key|api_?key|auth_?token)\w*["']?\s*[:=]\s*["'`][^"'`\s$]{16,}["'`]/i],
];

/** A warning for each text in the app's own modules that looks like a secret. */
export function findSecrets(sources) {
  const found = [];
  for (const { name, text, own } of sources) {
    for (const [kind, pattern] of SECRETS) {
      // Messages of packages contain many such names.
      if (!own && kind === NAMED) continue;
      const at = pattern.exec(text)?.index;
      if (at === undefined) continue;
      const line = text.slice(0, at).split("\n").length;
      found.push({ name, line, text: `${name}:${line}: warning: this looks like ${kind}, and anyone who has the component can read it: keep it in a setting and read it from process.env` });
    }
  }
  return found.sort((a, b) => a.name.localeCompare(b.name) || a.line - b.line).map((it) => it.text);
}
