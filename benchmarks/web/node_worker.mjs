// One engine with one model in a process of Node, driven by bench.mjs over messages.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

import { Agent, peaks, watchMemories } from "./engines.mjs";

let agent = null;

async function answer({ engine, method, argument, job }) {
  const read = async (url) => new Uint8Array(readFileSync(fileURLToPath(url)));
  const base = (folder) => `${pathToFileURL(folder)}/`;
  if (method === "peaks") return peaks(readFileSync(join(job.files, "peak.wasm")));
  if (agent === null) {
    watchMemories();
    const where = { modules: base(job.modules), files: base(job.files), read, isNode: true };
    agent = new Agent(engine, where);
  }
  return agent[method](argument);
}

process.on("message", async (message) => {
  try {
    process.send({ answer: await answer(message) });
  } catch (error) {
    process.send({ error: String(error.message ?? error) });
  }
});
