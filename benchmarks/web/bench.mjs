// Times engines on one model in turn: `node bench.mjs JOB.json` prints the result as JSON.
//
// JOB: {place: "chromium" or "node", model, engines, rounds, seconds, tree (the repository),
// files (folder of models and feeds), modules (node_modules of the peers), playwright
// (node_modules that have playwright-core), chromium (the browser)}. In Chromium each engine has a
// context of its own, so that nothing comes from a cache; in Node a process of its own.

import { fork } from "node:child_process";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";

const KINDS = { ".html": "text/html", ".mjs": "text/javascript", ".js": "text/javascript", ".wasm": "application/wasm" };
const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"];

const job = JSON.parse(readFileSync(process.argv[2], "utf8"));

/** Processor seconds that all processes have used. */
function busySeconds() {
  const line = readFileSync("/proc/stat", "utf8").split("\n")[0];
  const ticks = line.trim().split(/\s+/).slice(1, 9).map(Number);
  return (ticks.reduce((a, b) => a + b) - ticks[3] - ticks[4]) / 100;
}

/** Serves the three folders on 127.0.0.1, and notes what is fetched. */
function serve(fetched) {
  const folders = { tree: job.tree, files: job.files, modules: job.modules };
  const server = createServer((request, response) => {
    const path = decodeURIComponent(new URL(request.url, "http://localhost").pathname);
    const [, first, ...rest] = path.split("/");
    const file = normalize(join(folders[first] ?? "", ...rest));
    try {
      if (!folders[first] || !file.startsWith(normalize(folders[first]))) throw new Error("outside");
      const body = readFileSync(file);
      fetched.push({ path, bytes: body.length });
      const type = KINDS[extname(file)] ?? "application/octet-stream";
      response.writeHead(200, { "Content-Type": type, "Cache-Control": "no-store" });
      response.end(body);
    } catch {
      response.writeHead(404).end();
    }
  });
  return new Promise((done) => server.listen(0, "127.0.0.1", () => done(server)));
}

/** Pages in Chromium: ask(engine, method, argument) answers what the engine's agent answers. */
async function openChromium() {
  const { chromium } = createRequire(join(job.playwright, "x.js"))("playwright-core");
  const browser = await chromium.launch({ executablePath: job.chromium, args: FLAGS });
  const fetched = [];
  const server = await serve(fetched);
  const address = `http://127.0.0.1:${server.address().port}/tree/benchmarks/web/page.html`;
  const pages = {};
  const open = async () => {
    const page = await (await browser.newContext()).newPage();
    await page.goto(address);
    await page.waitForFunction("window.isReady");
    return page;
  };
  const peaks = await (await open()).evaluate("peaks()");
  return {
    peaks,
    version: `Chromium ${browser.version()}`,
    async load(engine) {
      fetched.length = 0;
      pages[engine] = await open();
      const call = ([name, model]) => window.agent(name).load(model);
      const found = await pages[engine].evaluate(call, [engine, job.model]);
      const ours = ({ path }) => !/\/benchmarks\/web\//.test(path);
      const isModel = ({ path }) => /\.(onnx|ort|tflite)$/.test(path);
      const files = fetched.filter(ours);
      const sum = (list) => list.reduce((total, { bytes }) => total + bytes, 0);
      const library = files.filter((file) => !isModel(file));
      return {
        ...found, libraryBytes: sum(library), modelBytes: sum(files.filter(isModel)),
        libraryFiles: library.map(({ path }) => path),
      };
    },
    ask: (engine, method, argument) =>
      pages[engine].evaluate(([name, given]) => window.current[name](given), [method, argument]),
    async close() {
      await browser.close();
      server.close();
    },
  };
}

/** The same with processes of Node. */
async function openNode() {
  const script = fileURLToPath(new URL("node_worker.mjs", import.meta.url));
  const children = {};
  const ask = (engine, method, argument) =>
    new Promise((done, fail) => {
      const child = children[engine];
      child.once("message", ({ answer, error }) => (error ? fail(new Error(error)) : done(answer)));
      child.once("exit", () => fail(new Error("it ended")));
      child.send({ engine, method, argument, job });
    });
  const start = (engine) => {
    children[engine] = fork(script, [], { stdio: ["ignore", "ignore", "ignore", "ipc"] });
  };
  start("peaks");
  const peaks = await ask("peaks", "peaks");
  children.peaks.kill();
  return {
    peaks,
    version: `Node ${process.version}`,
    async load(engine) {
      start(engine);
      return ask(engine, "load", job.model);
    },
    ask,
    async close() {
      Object.values(children).forEach((child) => child.kill());
    },
  };
}

async function main() {
  const place = await (job.place === "node" ? openNode() : openChromium());
  const engines = {};
  const attempt = async (engine, action) => {
    if (engines[engine].failed) return;
    try {
      await action(engines[engine]);
    } catch (error) {
      engines[engine].failed = String(error.message ?? error).split("\n")[0].slice(0, 300);
    }
  };
  for (const engine of job.engines) {
    engines[engine] = { turns: [] };
    await attempt(engine, async (result) => Object.assign(result, await place.load(engine)));
    await attempt(engine, async (result) =>
      Object.assign(result, await place.ask(engine, "first", job.model)),
    );
    await attempt(engine, () => place.ask(engine, "warm"));
  }
  for (let round = 0; round < job.rounds; ++round) {
    for (const engine of job.engines) {
      await attempt(engine, async (result) => {
        const [busy, start] = [busySeconds(), performance.now()];
        const turn = await place.ask(engine, "turn", job.seconds);
        const wall = (performance.now() - start) / 1000;
        // One of the cores is the engine's own.
        const others = Math.max((busySeconds() - busy) / wall - 1, 0);
        result.turns.push({ ...turn, others });
      });
    }
  }
  await place.close();
  console.log(JSON.stringify({ peaks: place.peaks, version: place.version, engines }));
}

await main();
process.exit(0);
