// Runs the operator cases, YuNet and Silero in WebAssembly in headless Chromium: simd128 and
// relaxed SIMD. ORTOLAN_CHROMIUM is the browser, ORTOLAN_NODE_MODULES has playwright-core in it.

import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { extname, join, normalize, relative } from "node:path";

import { Report } from "./report.mjs";
import { buildVariant, makeCases, makeModels, ROOT, VARIANTS } from "./setup.mjs";

const KINDS = { ".html": "text/html", ".mjs": "text/javascript", ".json": "application/json" };
const SERVED = ["/tests/web/", "/build/web/", "/build/cases/", "/build/models/"];
const MODELS_TO_RUN = ["yunet-n-dynamic.ort", "silero-vad-v5-op16.ort"];
// Root has no sandbox, containers have a small /dev/shm; WebAssembly needs no flag.
const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"];

/** Serves the folders of the tests on 127.0.0.1. */
function serve() {
  const server = createServer((request, response) => {
    const path = decodeURIComponent(new URL(request.url, "http://localhost").pathname);
    const file = normalize(join(ROOT, path));
    const isServed = SERVED.some((prefix) => file.startsWith(normalize(join(ROOT, prefix))));
    if (!isServed || !existsSync(file)) {
      response.writeHead(404).end();
      return;
    }
    response.writeHead(200, {
      "Content-Type": KINDS[extname(file)] ?? "application/octet-stream",
      "Cache-Control": "no-store",
    });
    response.end(readFileSync(file));
  });
  return new Promise((done) => server.listen(0, "127.0.0.1", () => done(server)));
}

async function openPage(browser, address) {
  const page = await browser.newPage();
  page.on("pageerror", (error) => console.log(`page: ${error}`));
  await page.goto(`${address}/tests/web/page.html`);
  await page.waitForFunction("window.isReady");
  return page;
}

async function runVariants(report, browser, address, folders) {
  for (const [name, { file, isRelaxed }] of Object.entries(VARIANTS)) {
    const page = await openPage(browser, address);
    if (isRelaxed && !(await page.evaluate("hasRelaxedSimd()"))) {
      report.skip(name, "this Chromium has no relaxed SIMD");
      continue;
    }
    const work = [name, file, MODELS_TO_RUN, ...folders];
    const result = await page.evaluate(([...given]) => window.run(...given), work);
    result.lines.forEach((line) => console.log(line));
    report.add(result);
    await page.close();
  }
}

async function main(report) {
  const modules = process.env.ORTOLAN_NODE_MODULES || join(ROOT, "build", "node", "node_modules");
  if (!existsSync(join(modules, "playwright-core"))) {
    report.skip("Chromium", "playwright-core is not installed");
    return;
  }
  const { chromium } = createRequire(join(modules, "x.js"))("playwright-core");
  const folders = [makeCases(), makeModels()].map(({ folder }) => `/${relative(ROOT, folder)}`);
  Object.values(VARIANTS).forEach(buildVariant);
  const server = await serve();
  const profile = mkdtempSync(join(tmpdir(), "ortolan-chromium-"));
  const executablePath = process.env.ORTOLAN_CHROMIUM || "/usr/bin/chromium";
  const options = { executablePath, headless: true, args: FLAGS };
  const browser = await chromium.launchPersistentContext(profile, options);
  try {
    await runVariants(report, browser, `http://127.0.0.1:${server.address().port}`, folders);
  } finally {
    await browser.close();
    server.close();
    rmSync(profile, { recursive: true, force: true });
  }
}

const report = new Report();
try {
  await main(report);
} catch (error) {
  report.test("Chromium", error.stack);
}
process.exitCode = report.end() ? 0 : 1;
