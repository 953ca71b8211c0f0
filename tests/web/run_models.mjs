// Runs the real models in WebAssembly, in this Node: simd128 and relaxed SIMD.

import { readFileSync } from "node:fs";
import { join } from "node:path";

import { judge, runCheck } from "./models.mjs";
import { hasRelaxedSimd, Ortolan } from "./ortolan.mjs";
import { Report } from "./report.mjs";
import { buildVariant, MODELS, python, VARIANTS } from "./setup.mjs";

async function runVariant(report, name, bytes, { checks, limit }) {
  const module = await WebAssembly.compile(bytes);
  for (const check of checks) {
    const title = `${name} ${check.name}`;
    try {
      const runtime = await Ortolan.instantiate(module);
      const result = await runCheck(runtime, check, (file) => readFileSync(join(MODELS, file)));
      const { line, problem } = judge(title, result, limit);
      console.log(line);
      report.test(title, problem);
    } catch (error) {
      report.test(title, error.stack);
    }
  }
}

const report = new Report();
python(join("tests", "models_bundle.py"), MODELS);
const index = JSON.parse(readFileSync(join(MODELS, "models.json"), "utf8"));
for (const [name, variant] of Object.entries(VARIANTS)) {
  if (index.missing) report.skip(`${name} models`, index.missing);
  else if (variant.isRelaxed && !hasRelaxedSimd())
    report.skip(`${name} models`, `Node ${process.version} has no relaxed SIMD, Node 24 has`);
  else await runVariant(report, name, buildVariant(variant), index);
}
report.end();
