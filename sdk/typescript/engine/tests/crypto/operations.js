// Operations of the standard's interface, for every engine that has it: `operations.same()` gives results that have to be the same
// everywhere, `operations.produce()` makes signatures, ciphertexts and keys, and `operations.consume(made)` reads what another engine made.
globalThis.operations = (() => {
  const { subtle } = crypto;
  const hex = (bytes) => Array.from(new Uint8Array(bytes.buffer ?? bytes, bytes.byteOffset ?? 0, bytes.byteLength), (byte) => byte.toString(16).padStart(2, "0")).join("");
  const bytes = (text) => new TextEncoder().encode(text);
  const unhex = (text) => Uint8Array.from(text.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16));
  const count = (length) => Uint8Array.from({ length }, (_, index) => index * 7 + 3);
  const data = bytes("the quick brown fox jumps over the lazy dog");
  const HASHES = ["SHA-1", "SHA-256", "SHA-384", "SHA-512"];

  const show = (value) => {
    if (value instanceof ArrayBuffer) return hex(value);
    if (value instanceof CryptoKey) {
      const { type, extractable, algorithm, usages } = value;
      const { publicExponent, ...rest } = algorithm;
      return { type, extractable, algorithm: { ...rest, ...(publicExponent && { publicExponent: hex(publicExponent) }) }, usages: [...usages].sort() };
    }
    if (value?.publicKey) return { publicKey: show(value.publicKey), privateKey: show(value.privateKey) };
    return value;
  };

  /** The results by name; an error is its name. */
  const run = async (table) => {
    const results = {};
    for (const [name, operation] of Object.entries(table)) {
      try {
        results[name] = show(await operation());
      } catch (error) {
        results[name] = `throws ${error.name}`;
      }
    }
    return results;
  };

  // Keys that were made for these tests.
  const RSA = KEYS.rsa;
  const PAIRS = KEYS.pairs;

  const secret = (algorithm, key, usages) => subtle.importKey("raw", key, algorithm, true, usages);
  const aes = (mode, size, usages = ["encrypt", "decrypt"]) => secret({ name: `AES-${mode}` }, count(size / 8), usages);
  const open = ({ d, p, q, dp, dq, qi, ...rest }) => rest;

  const same = async () => {
    const table = {};
    for (const hash of HASHES) {
      for (const length of [0, 1, 55, 56, 64, 111, 112, 128, 1000]) table[`digest ${hash} ${length}`] = () => subtle.digest(hash, count(length));
      for (const length of [1, 32, 64, 128, 200]) {
        table[`HMAC ${hash} ${length}`] = async () => subtle.sign("HMAC", await secret({ name: "HMAC", hash }, count(length), ["sign"]), data);
      }
      table[`HMAC ${hash} jwk`] = async () => subtle.exportKey("jwk", await secret({ name: "hmac", hash: { name: hash.toLowerCase() } }, count(20), ["sign", "verify"]));
      table[`HMAC ${hash} key`] = async () => secret({ name: "HMAC", hash }, count(20), ["sign"]);
      for (const length of [0, 8, 256, 1000, 1008]) {
        table[`HKDF ${hash} ${length}`] = async () =>
          subtle.deriveBits({ name: "HKDF", hash, salt: count(9), info: data }, await subtle.importKey("raw", count(30), "HKDF", false, ["deriveBits"]), length);
        table[`PBKDF2 ${hash} ${length}`] = async () =>
          subtle.deriveBits({ name: "PBKDF2", hash, salt: count(9), iterations: 7 }, await subtle.importKey("raw", count(30), "PBKDF2", false, ["deriveBits"]), length);
      }
      for (const name of ["RSASSA-PKCS1-v1_5"]) {
        table[`${name} ${hash} sign`] = async () => subtle.sign(name, await subtle.importKey("jwk", RSA, { name, hash }, false, ["sign"]), data);
      }
      for (const name of ["RSASSA-PKCS1-v1_5", "RSA-PSS", "RSA-OAEP"]) {
        const [privately, publicly] = name === "RSA-OAEP" ? [["decrypt"], ["encrypt"]] : [["sign"], ["verify"]];
        table[`${name} ${hash} import and export`] = async () => {
          const key = await subtle.importKey("jwk", RSA, { name, hash }, true, privately);
          const other = await subtle.importKey("jwk", open(RSA), { name, hash }, true, publicly);
          const exported = { key: show(key), other: show(other), jwk: await subtle.exportKey("jwk", key), openJwk: await subtle.exportKey("jwk", other) };
          for (const format of ["pkcs8", "spki", "raw"]) {
            for (const [title, source] of Object.entries({ key, other })) exported[`${format} ${title}`] = await subtle.exportKey(format, source).then(show, (error) => error.name === "NotSupportedError" ? "InvalidAccessError" : error.name);
          }
          for (const [format, title, usages] of [["pkcs8", "key", privately], ["spki", "other", publicly]]) {
            exported[`again ${format}`] = show(await subtle.importKey(format, unhex(exported[`${format} ${title}`]), { name, hash }, true, usages));
          }
          return exported;
        };
      }
      for (const from of ["HKDF", "PBKDF2"]) {
        for (const derived of [{ name: "AES-GCM", length: 256 }, { name: "AES-CBC", length: 192 }, { name: "HMAC", hash }, { name: "HMAC", hash, length: 160 }, { name: "AES-GCM", length: 100 }, { name: "AES-KW" }]) {
          table[`deriveKey ${from} ${hash} ${JSON.stringify(derived)}`] = async () => {
            const base = await subtle.importKey("raw", count(30), from, false, ["deriveKey"]);
            const usages = derived.name === "HMAC" ? ["sign"] : derived.name === "AES-KW" ? ["wrapKey"] : ["encrypt"];
            const key = await subtle.deriveKey({ name: from, hash, salt: count(9), info: data, iterations: 3 }, base, derived, true, usages);
            return { key: show(key), raw: hex(await subtle.exportKey("raw", key)) };
          };
        }
      }
    }
    for (const size of [128, 192, 256]) {
      for (const length of [0, 1, 16, 31, 100]) {
        const both = async (algorithm, key) => {
          const sealed = await subtle.encrypt(algorithm, key, count(length));
          return [hex(sealed), hex(await subtle.decrypt(algorithm, key, sealed))];
        };
        table[`AES-CBC ${size} ${length}`] = async () => both({ name: "AES-CBC", iv: count(16) }, await aes("CBC", size));
        for (const bits of [0, 1, 3, 8, 32, 64, 127, 128, 129]) {
          const counter = new Uint8Array(16).fill(255);
          table[`AES-CTR ${size} ${length} ${bits}`] = async () => both({ name: "AES-CTR", counter, length: bits }, await aes("CTR", size));
        }
        for (const iv of [0, 12, 16, 60]) {
          for (const tagLength of [undefined, 32, 96, 104, 128, 100]) {
            table[`AES-GCM ${size} ${length} ${iv} ${tagLength}`] = async () =>
              both({ name: "AES-GCM", iv: count(iv), tagLength, additionalData: length % 2 ? data : undefined }, await aes("GCM", size));
          }
        }
      }
      for (const mode of ["CBC", "CTR", "GCM", "KW"]) {
        const usages = mode === "KW" ? ["wrapKey", "unwrapKey"] : ["encrypt"];
        table[`AES-${mode} ${size} jwk`] = async () => subtle.exportKey("jwk", await aes(mode, size, usages));
        table[`AES-${mode} ${size} key`] = async () => aes(mode, size, usages);
        table[`AES-${mode} ${size} generateKey`] = async () => subtle.generateKey({ name: `AES-${mode}`, length: size }, true, usages);
      }
      table[`AES-KW ${size}`] = async () => {
        const key = await secret({ name: "HMAC", hash: "SHA-256" }, count(24), ["sign"]);
        const wrapped = await subtle.wrapKey("raw", key, await aes("KW", size, ["wrapKey"]), "AES-KW");
        const again = await subtle.unwrapKey("raw", wrapped, await aes("KW", size, ["unwrapKey"]), "AES-KW", { name: "HMAC", hash: "SHA-256" }, true, ["sign"]);
        return [hex(wrapped), hex(await subtle.exportKey("raw", again))];
      };
    }
    // The tests of the standard for these need generated keys.
    for (const hash of HASHES) {
      for (const format of ["raw", "jwk"]) {
        table[`RSA-OAEP ${hash} of ${format}`] = async () => {
          const name = "RSA-OAEP";
          const wrapping = await subtle.importKey("jwk", open(RSA), { name, hash }, false, ["wrapKey"]);
          const unwrapping = await subtle.importKey("jwk", RSA, { name, hash }, false, ["unwrapKey"]);
          const wrapped = await subtle.wrapKey(format, await aes("GCM", 128), wrapping, { name });
          return subtle.exportKey("jwk", await subtle.unwrapKey(format, wrapped, unwrapping, { name }, "AES-GCM", true, ["encrypt"]));
        };
      }
    }
    for (const wrapper of ["AES-KW", "AES-GCM", "AES-CBC", "AES-CTR"]) {
      table[`${wrapper} of jwk`] = async () => {
        const key = await subtle.importKey("jwk", PAIRS["ECDSA P-256"], { name: "ECDSA", namedCurve: "P-256" }, true, ["sign"]);
        const params = { name: wrapper, iv: count(16), counter: count(16), length: 64 };
        const wrapping = await aes(wrapper.slice(4), 128, ["wrapKey", "unwrapKey"]);
        const wrapped = await subtle.wrapKey("jwk", key, wrapping, params);
        return subtle.exportKey("jwk", await subtle.unwrapKey("jwk", wrapped, wrapping, params, { name: "ECDSA", namedCurve: "P-256" }, true, ["sign"]));
      };
    }
    for (const [name, jwk] of Object.entries(PAIRS)) {
      const [algorithm, family] = name.split(" ");
      const parameters = family ? { name: algorithm, namedCurve: family } : { name: algorithm };
      const signs = algorithm === "ECDSA" || algorithm === "Ed25519";
      const [privately, publicly] = signs ? [["sign"], ["verify"]] : [["deriveBits", "deriveKey"], []];
      table[`${name} import and export`] = async () => {
        const key = await subtle.importKey("jwk", jwk, parameters, true, privately);
        const other = await subtle.importKey("jwk", open(jwk), parameters, true, publicly);
        const exported = { key: show(key), other: show(other), jwk: await subtle.exportKey("jwk", key), openJwk: await subtle.exportKey("jwk", other) };
        for (const format of ["pkcs8", "spki", "raw"]) {
          for (const [title, source] of Object.entries({ key, other })) exported[`${format} ${title}`] = await subtle.exportKey(format, source).then(show, (error) => error.name);
        }
        for (const [format, title, usages] of [["pkcs8", "key", privately], ["spki", "other", publicly], ["raw", "other", publicly]]) {
          exported[`again ${format}`] = show(await subtle.importKey(format, unhex(exported[`${format} ${title}`]), parameters, true, usages));
        }
        return exported;
      };
      table[`${name} wrong point`] = async () => subtle.importKey("jwk", { ...open(jwk), x: jwk.d }, parameters, true, publicly).then((key) => (family ? key : "imported"));
      table[`${name} other's key`] = async () => subtle.importKey("jwk", { ...jwk, d: jwk.x }, parameters, true, privately).then(() => "imported", (error) => (family ? "imported" : error.name));
      for (const size of [0, 1, 31, 33, 64, 65, 66, 97, 133]) table[`${name} raw ${size}`] = () => subtle.importKey("raw", count(size), parameters, true, publicly).then(() => "imported");
      for (const format of ["spki", "pkcs8"]) table[`${name} ${format} of RSA`] = async () => {
        const usages = format === "spki" ? ["verify"] : ["sign"];
        const rsa = await subtle.importKey("jwk", format === "spki" ? open(RSA) : RSA, { name: "RSA-PSS", hash: "SHA-256" }, true, usages);
        return subtle.importKey(format, await subtle.exportKey(format, rsa), parameters, true, format === "spki" ? publicly : privately);
      };
      if (algorithm === "Ed25519") table["Ed25519 sign"] = async () => subtle.sign("Ed25519", await subtle.importKey("jwk", jwk, "Ed25519", false, ["sign"]), data);
      if (!signs) {
        for (const length of [null, 0, 8, 128, 250, 256, 264, 384, 528, 536, 1000]) {
          table[`${name} deriveBits ${length}`] = async () => {
            const key = await subtle.importKey("jwk", jwk, parameters, false, ["deriveBits"]);
            const other = await subtle.importKey("jwk", open(jwk), parameters, false, []);
            return subtle.deriveBits({ name: algorithm, public: other }, key, length);
          };
        }
        table[`${name} deriveKey`] = async () => {
          const key = await subtle.importKey("jwk", jwk, parameters, false, ["deriveKey"]);
          const other = await subtle.importKey("jwk", open(jwk), parameters, false, []);
          return subtle.exportKey("raw", await subtle.deriveKey({ name: algorithm, public: other }, key, { name: "AES-GCM", length: 128 }, true, ["encrypt"]));
        };
      }
    }
    Object.assign(table, mistakes());
    return run(table);
  };

  /** Arguments that are refused: the names of the errors are part of the standard. */
  const mistakes = () => {
    const table = {};
    const algorithms = {
      "AES-GCM": [{ name: "AES-GCM" }, count(16), ["encrypt"]],
      "AES-KW": [{ name: "AES-KW" }, count(16), ["wrapKey"]],
      HMAC: [{ name: "HMAC", hash: "SHA-256" }, count(16), ["sign"]],
      HKDF: [{ name: "HKDF" }, count(16), ["deriveBits"]],
      PBKDF2: [{ name: "PBKDF2" }, count(16), ["deriveKey"]],
    };
    for (const [name, [algorithm, key, usages]] of Object.entries(algorithms)) {
      const add = (title, ...args) => (table[`importKey ${name} ${title}`] = () => subtle.importKey(...args).then(show));
      add("raw", "raw", key, algorithm, false, usages);
      add("extractable", "raw", key, algorithm, true, usages);
      add("no usages", "raw", key, algorithm, false, []);
      add("every usage", "raw", key, algorithm, false, ["sign", "verify", "encrypt", "decrypt", "wrapKey", "unwrapKey", "deriveKey", "deriveBits"]);
      add("usage twice", "raw", key, algorithm, false, [...usages, ...usages].slice(0, 1));
      add("unknown usage", "raw", key, algorithm, false, ["fly"]);
      add("spki", "spki", key, algorithm, false, usages);
      add("unknown format", "der", key, algorithm, false, usages);
      add("text", "raw", "text", algorithm, false, usages);
      add("no bytes", "raw", new Uint8Array(), algorithm, false, usages);
      add("odd length", "raw", count(15), algorithm, false, usages);
      add("number", "raw", 5, algorithm, false, usages);
      add("jwk", "jwk", { kty: "oct", k: "AAECAwQFBgcICQoLDA0ODw" }, algorithm, false, usages);
      add("jwk of RSA", "jwk", { kty: "RSA", k: "AAECAwQFBgcICQoLDA0ODw" }, algorithm, false, usages);
      add("jwk without k", "jwk", { kty: "oct" }, algorithm, false, usages);
      add("jwk that is bytes", "jwk", key, algorithm, false, usages);
      add("jwk that is null", "jwk", null, algorithm, false, usages);
      add("jwk use", "jwk", { kty: "oct", k: "AAECAwQFBgcICQoLDA0ODw", use: "other" }, algorithm, false, usages);
      add("jwk ext", "jwk", { kty: "oct", k: "AAECAwQFBgcICQoLDA0ODw", ext: false }, algorithm, true, usages);
      add("jwk alg", "jwk", { kty: "oct", k: "AAECAwQFBgcICQoLDA0ODw", alg: "HS512" }, algorithm, false, usages);
      add("jwk key_ops", "jwk", { kty: "oct", k: "AAECAwQFBgcICQoLDA0ODw", key_ops: ["verify"] }, algorithm, false, usages);
      add("jwk key_ops twice", "jwk", { kty: "oct", k: "AAECAwQFBgcICQoLDA0ODw", key_ops: ["sign", "sign"] }, algorithm, false, usages);
    }
    for (const identifier of ["AES-FOO", "", {}, null, undefined, 5, { name: 5 }, { name: "HMAC" }, { name: "HMAC", hash: "MD5" }, { name: "HMAC", hash: {} }, { name: "HMAC", hash: "SHA-256", length: -1 }, { name: "HMAC", hash: "SHA-256", length: 2 ** 33 }, { name: "HMAC", hash: "SHA-256", length: 64 }, { name: "ECDSA", namedCurve: "P-1" }, { name: "ECDSA" }]) {
      const title = JSON.stringify(identifier) ?? "undefined";
      table[`importKey ${title}`] = () => subtle.importKey("raw", count(16), identifier, false, ["sign"]);
      table[`generateKey ${title}`] = () => subtle.generateKey(identifier, false, ["sign"]).then(() => "generated");
      table[`digest ${title}`] = () => subtle.digest(identifier, data);
      table[`sign ${title}`] = async () => subtle.sign(identifier, await secret({ name: "HMAC", hash: "SHA-1" }, count(9), ["sign"]), data);
      table[`encrypt ${title}`] = async () => subtle.encrypt(identifier, await aes("GCM", 128), data);
    }
    for (const [title, params] of Object.entries({
      "no iv": {}, "iv of text": { iv: "text" }, "tag of 300": { iv: count(12), tagLength: 300 }, "tag of 120.5": { iv: count(12), tagLength: 120.5 }, "additional text": { iv: count(12), additionalData: "x" },
    })) table[`AES-GCM ${title}`] = async () => subtle.encrypt({ name: "AES-GCM", ...params }, await aes("GCM", 128), data);
    table["AES-CBC iv of 15"] = async () => subtle.encrypt({ name: "AES-CBC", iv: count(15) }, await aes("CBC", 128), data);
    table["AES-CTR counter of 15"] = async () => subtle.encrypt({ name: "AES-CTR", counter: count(15), length: 8 }, await aes("CTR", 128), data);
    table["AES-CTR too much data"] = async () => subtle.encrypt({ name: "AES-CTR", counter: count(16), length: 2 }, await aes("CTR", 128), count(100));
    table["AES-CBC garbage"] = async () => subtle.decrypt({ name: "AES-CBC", iv: count(16) }, await aes("CBC", 128), count(32));
    table["AES-CBC partial block"] = async () => subtle.decrypt({ name: "AES-CBC", iv: count(16) }, await aes("CBC", 128), count(31));
    table["AES-CBC nothing"] = async () => subtle.decrypt({ name: "AES-CBC", iv: count(16) }, await aes("CBC", 128), count(0));
    table["AES-GCM garbage"] = async () => subtle.decrypt({ name: "AES-GCM", iv: count(12) }, await aes("GCM", 128), count(40));
    table["AES-GCM short"] = async () => subtle.decrypt({ name: "AES-GCM", iv: count(12) }, await aes("GCM", 128), count(4));
    table["AES-KW garbage"] = async () => subtle.unwrapKey("raw", count(24), await aes("KW", 128, ["unwrapKey"]), "AES-KW", { name: "AES-GCM" }, true, ["encrypt"]);
    table["AES-KW of 9 bytes"] = async () => subtle.wrapKey("raw", await secret({ name: "HMAC", hash: "SHA-1" }, count(9), ["sign"]), await aes("KW", 128, ["wrapKey"]), "AES-KW");
    table["encrypt by AES-KW"] = async () => subtle.encrypt("AES-KW", await aes("KW", 128, ["wrapKey"]), data);
    table["encrypt by another key"] = async () => subtle.encrypt({ name: "AES-CBC", iv: count(16) }, await aes("GCM", 128), data);
    table["encrypt without usage"] = async () => subtle.encrypt({ name: "AES-CBC", iv: count(16) }, await aes("CBC", 128, ["decrypt"]), data);
    table["encrypt by no key"] = async () => subtle.encrypt({ name: "AES-CBC", iv: count(16) }, {}, data);
    table["encrypt by an object with key bytes"] = async () => subtle.encrypt({ name: "AES-CBC", iv: count(16) }, { bytes: count(16), family: "", algorithm: { name: "AES-CBC" }, usages: ["encrypt"] }, data);
    table["encrypt text"] = async () => subtle.encrypt({ name: "AES-CBC", iv: count(16) }, await aes("CBC", 128), "text");
    table["too few arguments"] = () => subtle.digest("SHA-256");
    table["sign by HMAC with public usages"] = async () => subtle.sign("HMAC", await secret({ name: "HMAC", hash: "SHA-1" }, count(9), ["verify"]), data);
    table["verify a short HMAC"] = async () => subtle.verify("HMAC", await secret({ name: "HMAC", hash: "SHA-1" }, count(9), ["verify"]), count(19), data);
    table["export a key that is not extractable"] = async () => subtle.exportKey("raw", await subtle.importKey("raw", count(16), "AES-GCM", false, ["encrypt"])).catch(() => "refused");
    table["export HMAC as spki"] = async () => subtle.exportKey("spki", await secret({ name: "HMAC", hash: "SHA-1" }, count(9), ["sign"])).catch(() => "refused");
    table["derive with a wrong salt"] = async () => subtle.deriveBits({ name: "HKDF", hash: "SHA-256", salt: "x", info: data }, await subtle.importKey("raw", count(3), "HKDF", false, ["deriveBits"]), 8);
    table["derive null of HKDF"] = async () => subtle.deriveBits({ name: "HKDF", hash: "SHA-256", salt: data, info: data }, await subtle.importKey("raw", count(3), "HKDF", false, ["deriveBits"]), null);
    table["derive 7 bits of HKDF"] = async () => subtle.deriveBits({ name: "HKDF", hash: "SHA-256", salt: data, info: data }, await subtle.importKey("raw", count(3), "HKDF", false, ["deriveBits"]), 7);
    table["derive too much of HKDF"] = async () => subtle.deriveBits({ name: "HKDF", hash: "SHA-256", salt: data, info: data }, await subtle.importKey("raw", count(3), "HKDF", false, ["deriveBits"]), 8 * 255 * 32 + 8);
    table["derive by no iterations"] = async () => subtle.deriveBits({ name: "PBKDF2", hash: "SHA-256", salt: data, iterations: 0 }, await subtle.importKey("raw", count(3), "PBKDF2", false, ["deriveBits"]), 8);
    table["derive without usage"] = async () => subtle.deriveBits({ name: "PBKDF2", hash: "SHA-256", salt: data, iterations: 1 }, await subtle.importKey("raw", count(3), "PBKDF2", false, ["deriveKey"]), 8);
    table["derive from a private key"] = async () => {
      const key = await subtle.importKey("jwk", PAIRS["ECDH P-256"], { name: "ECDH", namedCurve: "P-256" }, false, ["deriveBits"]);
      return subtle.deriveBits({ name: "ECDH", public: key }, key, 8);
    };
    table["derive from another curve"] = async () => {
      const key = await subtle.importKey("jwk", PAIRS["ECDH P-256"], { name: "ECDH", namedCurve: "P-256" }, false, ["deriveBits"]);
      const other = await subtle.importKey("jwk", open(PAIRS["ECDH P-384"]), { name: "ECDH", namedCurve: "P-384" }, false, []);
      return subtle.deriveBits({ name: "ECDH", public: other }, key, 8);
    };
    for (const [title, other] of Object.entries({ kty: { kty: "EC" }, use: { use: "enc" }, "use sig": { use: "sig" }, alg: { alg: "RS512" }, "alg RS256": { alg: "RS256" }, key_ops: { key_ops: ["sign"] }, "no e": { e: undefined }, "bad n": { n: "!" } })) {
      table[`RSA jwk ${title}`] = () => subtle.importKey("jwk", { ...open(RSA), ...other }, { name: "RSASSA-PKCS1-v1_5", hash: "SHA-256" }, true, ["verify"]).then(show);
    }
    for (const [title, other] of Object.entries({ kty: { kty: "RSA" }, crv: { crv: "P-384" }, use: { use: "enc" }, alg: { alg: "ES384" }, "alg ES256": { alg: "ES256" }, "no y": { y: undefined }, "bad y": { y: "!" } })) {
      table[`ECDSA jwk ${title}`] = () => subtle.importKey("jwk", { ...open(PAIRS["ECDSA P-256"]), ...other }, { name: "ECDSA", namedCurve: "P-256" }, true, ["verify"]).then(show);
      table[`Ed25519 jwk ${title}`] = () => subtle.importKey("jwk", { ...open(PAIRS.Ed25519), ...other }, "Ed25519", true, ["verify"]).then(show);
    }
    for (const [title, args] of Object.entries({
      "no usages": [{ name: "ECDSA", namedCurve: "P-256" }, true, []],
      "public usages": [{ name: "ECDSA", namedCurve: "P-256" }, true, ["verify"]],
      ECDSA: [{ name: "ECDSA", namedCurve: "P-521" }, false, ["sign", "verify"]],
      "wrong usages": [{ name: "ECDSA", namedCurve: "P-256" }, true, ["sign", "encrypt"]],
      ECDH: [{ name: "ECDH", namedCurve: "P-384" }, false, ["deriveBits"]],
      Ed25519: ["Ed25519", true, ["verify", "sign"]],
      X25519: [{ name: "X25519" }, true, ["deriveKey"]],
      HMAC: [{ name: "HMAC", hash: "SHA-384" }, true, ["sign"]],
      "HMAC of 256": [{ name: "HMAC", hash: "SHA-384", length: 256 }, true, ["sign"]],
      "AES of 100": [{ name: "AES-GCM", length: 100 }, true, ["encrypt"]],
      PBKDF2: ["PBKDF2", false, ["deriveBits"]],
      "RSA of a wrong exponent": [{ name: "RSA-PSS", hash: "SHA-256", modulusLength: 2048, publicExponent: [1, 0, 1] }, true, ["sign"]],
    })) table[`generateKey with ${title}`] = () => subtle.generateKey(...args);
    for (const [title, view] of Object.entries({ "Float32Array": new Float32Array(2), DataView: new DataView(new ArrayBuffer(2)), ArrayBuffer: new ArrayBuffer(2), "65537 bytes": new Uint8Array(65537), nothing: undefined })) {
      table[`getRandomValues ${title}`] = () => crypto.getRandomValues(view);
    }
    for (const type of [Int8Array, Uint8ClampedArray, BigUint64Array]) table[`getRandomValues ${type.name}`] = () => crypto.getRandomValues(new type(4)).length;
    table["getRandomValues returns its argument"] = () => { const view = new Uint8Array(4); return crypto.getRandomValues(view) === view; };
    table["randomUUID"] = () => /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/.test(crypto.randomUUID());
    table["randomUUID twice"] = () => crypto.randomUUID() === crypto.randomUUID();
    table["new CryptoKey"] = () => new CryptoKey();
    table["tags"] = async () => [String(crypto), String(crypto.subtle), String(await aes("GCM", 128)), Object.keys(crypto.subtle).length];
    table["changes to a key's usages grant nothing"] = async () => {
      const key = await aes("CBC", 128, ["decrypt"]);
      try { key.usages.push("encrypt"); } catch {}
      return subtle.encrypt({ name: "AES-CBC", iv: count(16) }, key, data);
    };
    return table;
  };

  const SIGNATURES = [
    ...HASHES.flatMap((hash) => ["P-256", "P-384", "P-521"].map((namedCurve) => [{ name: "ECDSA", namedCurve }, { name: "ECDSA", hash }, `ECDSA ${namedCurve}`])),
    ...HASHES.flatMap((hash) => [0, 20, 32].map((saltLength) => [{ name: "RSA-PSS", hash }, { name: "RSA-PSS", saltLength }, "RSA"])),
    ...HASHES.map((hash) => [{ name: "RSASSA-PKCS1-v1_5", hash }, { name: "RSASSA-PKCS1-v1_5" }, "RSA"]),
    [{ name: "Ed25519" }, { name: "Ed25519" }, "Ed25519"],
  ];
  const SEALS = HASHES.flatMap((hash) => [undefined, data].map((label) => [{ name: "RSA-OAEP", hash }, { name: "RSA-OAEP", ...(label && { label }) }]));
  const GENERATED = [...["P-256", "P-384", "P-521"].flatMap((namedCurve) => [{ name: "ECDSA", namedCurve }, { name: "ECDH", namedCurve }]), { name: "Ed25519" }, { name: "X25519" }];
  const usagesOf = ({ name }) => (name === "ECDH" || name === "X25519" ? [["deriveBits"], []] : [["sign"], ["verify"]]);
  const jwkOf = (name) => (name === "RSA" ? RSA : PAIRS[name]);

  const produce = async () => ({
    signatures: await Promise.all(SIGNATURES.map(async ([key, params, name]) => hex(await subtle.sign(params, await subtle.importKey("jwk", jwkOf(name), key, false, ["sign"]), data)))),
    seals: await Promise.all(SEALS.map(async ([key, params]) => hex(await subtle.encrypt(params, await subtle.importKey("jwk", open(RSA), key, false, ["encrypt"]), count(20))))),
    keys: await Promise.all(GENERATED.map(async (algorithm) => {
      const { publicKey, privateKey } = await subtle.generateKey(algorithm, true, usagesOf(algorithm).flat());
      return {
        raw: hex(await subtle.exportKey("raw", publicKey)), spki: hex(await subtle.exportKey("spki", publicKey)), pkcs8: hex(await subtle.exportKey("pkcs8", privateKey)),
        jwk: await subtle.exportKey("jwk", privateKey),
      };
    })),
  });

  /** The faults of the values that another engine made. */
  const consume = async ({ signatures, seals, keys }) => {
    const wrong = [];
    for (const [index, [key, params, name]] of SIGNATURES.entries()) {
      const imported = await subtle.importKey("jwk", open(jwkOf(name)), key, false, ["verify"]);
      const signature = unhex(signatures[index]);
      if (!(await subtle.verify(params, imported, signature, data))) wrong.push(`signature ${index} is not valid`);
      if (await subtle.verify(params, imported, signature, count(43))) wrong.push(`signature ${index} is valid for other data`);
      signature[signature.length - 1] ^= 1;
      if (await subtle.verify(params, imported, signature, data)) wrong.push(`changed signature ${index} is valid`);
      if (await subtle.verify(params, imported, signature.subarray(1), data)) wrong.push(`cut signature ${index} is valid`);
    }
    for (const [index, [key, params]] of SEALS.entries()) {
      const imported = await subtle.importKey("jwk", RSA, key, false, ["decrypt"]);
      if (hex(await subtle.decrypt(params, imported, unhex(seals[index]))) !== hex(count(20))) wrong.push(`seal ${index} is not opened`);
      const error = await subtle.decrypt({ ...params, label: count(3) }, imported, unhex(seals[index])).catch((error) => error.name);
      if (error !== "OperationError") wrong.push(`seal ${index} with another label: ${error}`);
    }
    for (const [index, algorithm] of GENERATED.entries()) {
      const [privately, publicly] = usagesOf(algorithm);
      const { jwk, ...formats } = keys[index];
      const key = await subtle.importKey("jwk", jwk, algorithm, true, privately);
      const other = await subtle.importKey("jwk", { ...open(jwk), key_ops: undefined }, algorithm, true, publicly);
      for (const [format, exported] of Object.entries(formats)) {
        const source = format === "pkcs8" ? key : other;
        if (hex(await subtle.exportKey(format, source)) !== exported) wrong.push(`key ${index}: ${format} of its JSON Web Key differs`);
        const again = await subtle.importKey(format, unhex(exported), algorithm, true, format === "pkcs8" ? privately : publicly);
        if (hex(await subtle.exportKey(format, again)) !== exported) wrong.push(`key ${index}: ${format} again differs`);
      }
    }
    return wrong;
  };

  return { same, produce, consume };
})();
