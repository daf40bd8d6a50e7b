// A child process whose output is read by line, and which ends with the test process at the latest.
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { inTime, processLogs, until } from "./until.js";

const TAIL_LINES = 40;

export class Child {
  /** All lines of its stdout. */
  stdout = [];
  /** The last lines of its stderr. */
  stderr = [];
  /** `{code, signal}` once it has ended. */
  end = null;

  constructor(name, file, args, { env = process.env, cwd } = {}) {
    this.name = name;
    this.process = spawn(file, args, { env, cwd, stdio: ["ignore", "pipe", "pipe"] });
    this.exited = new Promise((resolve) => {
      this.process.once("error", (error) => resolve((this.end = { code: null, signal: null, error })));
      // "close", not "exit": all output has been read by then.
      this.process.once("close", (code, signal) => resolve((this.end ??= { code, signal })));
    });
    createInterface({ input: this.process.stdout }).on("line", (line) => this.stdout.push(line));
    createInterface({ input: this.process.stderr }).on("line", (line) => {
      this.stderr.push(line);
      if (this.stderr.length > TAIL_LINES) this.stderr.shift();
    });

    const killOnExit = () => this.process.kill("SIGKILL");
    const processLog = () => this.log();
    process.once("exit", killOnExit);
    processLogs.add(processLog);
    this.exited.then(() => {
      process.removeListener("exit", killOnExit);
      processLogs.delete(processLog);
    });
  }

  /** The first match of `pattern` on a line of stdout. */
  async line(pattern, within = 30_000) {
    return until(
      `${this.name} prints ${pattern}`,
      () => {
        const match = this.stdout.map((line) => pattern.exec(line)).find(Boolean);
        if (match) return match;
        if (this.end) throw new Error(`${this.name} ended before it printed ${pattern}\n${this.log()}`);
      },
      { within },
    );
  }

  /** Terminates the process, and kills it after ten seconds. Returns `{code, signal}`. */
  async stop() {
    if (this.end) return this.end;
    this.process.kill("SIGTERM");
    try {
      return await inTime(`${this.name} ends on SIGTERM`, this.exited, 10_000);
    } catch {
      return this.kill();
    }
  }

  /** Kills the process. */
  async kill() {
    if (!this.end) this.process.kill("SIGKILL");
    return this.exited;
  }

  log() {
    const state = this.end ? `ended: ${JSON.stringify(this.end)} ${this.end.error ?? ""}` : "running";
    return [`--- ${this.name} (${state})`, ...this.stdout.slice(-10), ...this.stderr].join("\n    ");
  }
}
