// `node:os`: nothing of the machine is visible.
declare const module: { exports: unknown };

module.exports = {
  EOL: "\n",
  arch: () => "wasm32",
  cpus: () => [],
  homedir: () => "/",
  hostname: () => "localhost",
  platform: () => "wasi",
  release: () => "",
  tmpdir: () => "/tmp",
  type: () => "WASI",
};
