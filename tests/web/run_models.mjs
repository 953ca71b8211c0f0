// Runs the real models in WebAssembly, in this Node: simd128 and relaxed SIMD.

import { readFileSync } from "node:fs";
import { join } from "node:path";

import { runModels, testJudge } from "./models.mjs";
import { hasRelaxedSimd } from "./ortolan.mjs";
import { Report } from "./report.mjs";
import { buildVariant, makeModels, VARIANTS } from "./setup.mjs";

const report = new Report();
testJudge(report);
const { folder, index } = makeModels();
for (const [name, variant] of Object.entries(VARIANTS)) {
  if (index.missing) report.skip(`${name} real models`, index.missing);
  if (variant.isRelaxed && !hasRelaxedSimd())
    report.skip(name, `Node ${process.version} has no relaxed SIMD, Node 24 has`);
  else {
    const own = new Report(`${name} `);
    const module = await WebAssembly.compile(buildVariant(variant));
    await runModels(module, index, (file) => readFileSync(join(folder, file)), own);
    report.add(own);
  }
}
process.exitCode = report.end() ? 0 : 1;
