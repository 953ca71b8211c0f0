// Runs the operator cases of tests/cases in WebAssembly, in this Node: simd128 and relaxed SIMD.

import { readFileSync } from "node:fs";
import { join } from "node:path";

import { differences, readTensor } from "./compare.mjs";
import { hasRelaxedSimd, Ortolan, OrtolanError } from "./ortolan.mjs";
import { Report } from "./report.mjs";
import { buildVariant, CASES, python, VARIANTS } from "./setup.mjs";

function readTensors(entries) {
  return Object.fromEntries(entries.map((entry) => [entry.name, readTensor(entry)]));
}

/** Loads and runs a case; returns what is wrong. */
function runCase(runtime, entry) {
  const bytes = readFileSync(join(CASES, entry.model));
  let model = null;
  let results;
  try {
    model = runtime.load(bytes);
    results = model.run(readTensors(entry.inputs));
  } catch (error) {
    if (!(error instanceof OrtolanError)) throw error;
    if (entry.error !== null && error.message.includes(entry.error)) return "";
    return `${error.name}: ${error.message}`;
  } finally {
    model?.release();
  }
  if (entry.error !== null) return "it must fail and did not";
  const problems = entry.outputs.map((output) => {
    const problem = differences(results[output.name], readTensor(output), entry.tolerance);
    return problem && `${output.name}: ${problem}`;
  });
  return problems.filter(Boolean).join("; ");
}

async function runVariant(report, name, bytes, cases) {
  const module = await WebAssembly.compile(bytes);
  let runtime = await Ortolan.instantiate(module);
  for (const entry of cases) {
    if (entry.refusal !== undefined) continue; // the converter's matter, tests/test_cases.py has it
    if (entry.skip !== undefined) {
      report.skip(`${name} ${entry.id}`, entry.skip);
      continue;
    }
    let problem;
    try {
      problem = runCase(runtime, entry);
    } catch (error) {
      problem = `the runtime is broken: ${error.stack}`;
      runtime = await Ortolan.instantiate(module); // a trap leaves the memory as it was
    }
    report.test(`${name} ${entry.id}`, problem);
  }
  console.log(`${name}: ${runtime.instructionSet}, ${runtime.memoryBytes} bytes of memory`);
}

const report = new Report();
python(join("tests", "cases_bundle.py"), CASES);
const { cases } = JSON.parse(readFileSync(join(CASES, "cases.json"), "utf8"));
for (const [name, variant] of Object.entries(VARIANTS)) {
  if (variant.isRelaxed && !hasRelaxedSimd())
    report.skip(name, `Node ${process.version} has no relaxed SIMD, Node 24 has`);
  else await runVariant(report, name, buildVariant(variant), cases);
}
report.end();
