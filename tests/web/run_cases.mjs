// Runs the operator cases of tests/cases in WebAssembly, in this Node: simd128, also with the kernels
// of small builds (not with --quick), and relaxed SIMD.

import { readFileSync } from "node:fs";
import { join } from "node:path";

import { LOOP_CASE, testApi, testTime } from "./api.mjs";
import { runCases, testComparison } from "./cases.mjs";
import { hasRelaxedSimd } from "./ortolan.mjs";
import { Report } from "./report.mjs";
import { buildVariant, makeCases, SMALL, VARIANTS } from "./setup.mjs";

const SIMPLE_CASE = "convolution/Conv/padded";

const report = new Report();
testComparison(report);
const { folder, cases } = makeCases();
for (const [name, variant] of Object.entries({ ...VARIANTS, small: SMALL })) {
  if (variant === SMALL && process.argv.includes("--quick")) {
    report.skip(name, "left out by --quick");
    continue;
  }
  if (variant.isRelaxed && !hasRelaxedSimd()) {
    report.skip(name, `Node ${process.version} has no relaxed SIMD, Node 24 has`);
    continue;
  }
  const own = new Report(`${name} `);
  const module = await WebAssembly.compile(buildVariant(variant));
  const read = (file) => readFileSync(join(folder, file));
  const entry = cases.find(({ id }) => id === SIMPLE_CASE);
  await testApi(module, entry, read(entry.model), own);
  const loop = cases.find(({ id }) => id === LOOP_CASE);
  await testTime(module, loop, read(loop.model), own);
  console.log(`${name}: ${await runCases(module, cases, read, own)}`);
  report.add(own);
}
process.exitCode = report.end() ? 0 : 1;
