// Runs the operator cases that tests/cases_bundle.py writes; for Node and for browsers.

import { differences, readTensor } from "./compare.mjs";
import { Ortolan, OrtolanError } from "./ortolan.mjs";

function readTensors(entries) {
  return Object.fromEntries(entries.map((entry) => [entry.name, readTensor(entry)]));
}

/** Loads and runs a case; returns what is wrong, empty when nothing is. */
export function runCase(runtime, entry, bytes) {
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

/**
 * Runs all cases in one instance of a module.
 * @param read gives the bytes of a file of the bundle, or a promise of them.
 * @param report has test(name, problem) and skip(name, reason).
 */
export async function runCases(module, cases, read, report) {
  let runtime = await Ortolan.instantiate(module);
  for (const entry of cases) {
    if (entry.refusal !== undefined) continue; // the converter's matter, tests/test_cases.py has it
    if (entry.skip !== undefined) {
      report.skip(entry.id, entry.skip);
      continue;
    }
    const bytes = await read(entry.model);
    try {
      report.test(entry.id, runCase(runtime, entry, bytes));
    } catch (error) {
      report.test(entry.id, `the runtime is broken: ${error.stack}`);
      runtime = await Ortolan.instantiate(module); // a trap leaves the memory as it was
    }
  }
  return `${runtime.instructionSet}, ${runtime.memoryBytes} bytes of memory`;
}

const float = (shape, ...numbers) => ({ type: "float", shape, data: Float32Array.from(numbers) });

// Pairs that are equal by the rule, and pairs that are not.
const EQUAL = [
  [float([2], 1, 2.00001), float([2], 1, 2)],
  [float([2], 1, 1000), float([2], 1.005, 1000)],
  [float([1], 1e-8), float([1], 0)],
  [float([2], NaN, Infinity), float([2], NaN, Infinity)],
  [float([0]), float([0])],
];
const UNEQUAL = [
  [float([2], 1, 2.001), float([2], 1, 2)],
  [float([1], 1e-6), float([1], 0)],
  [float([1], NaN), float([1], 1)],
  [float([1], 1), float([1], NaN)],
  [float([2], NaN, NaN), float([2], NaN, 1)],
  [float([1], Infinity), float([1], -Infinity)],
  [float([1], Infinity), float([1], 1)],
  [float([1], 1), float([1], Infinity)],
  [float([1, 1], 1), float([1], 1)],
  [{ type: "int32", shape: [1], data: Int32Array.of(1) }, float([1], 1)],
  [
    { type: "int64", shape: [1], data: BigInt64Array.of(1n) },
    { type: "int64", shape: [1], data: BigInt64Array.of(2n) },
  ],
];

/** Shows that the comparison can fail. */
export function testComparison(report) {
  EQUAL.forEach(([a, b], k) => report.test(`equal pair ${k}`, differences(a, b)));
  UNEQUAL.forEach(([a, b], k) =>
    report.test(`unequal pair ${k}`, differences(a, b) ? "" : "no difference was seen"),
  );
}
