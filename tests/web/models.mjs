// Runs the checks of real models that tests/models_bundle.py writes; for Node and for browsers.

import { scaleOf } from "./compare.mjs";
import { Ortolan, typedArray } from "./ortolan.mjs";

function readTensor(data, { type, shape, offset, bytes }) {
  return { type, shape, data: typedArray(type, data.subarray(offset, offset + bytes)) };
}

/** The largest difference relative to the expected tensor's largest magnitude; NaN stays NaN. */
function errorOf(got, expected, scale) {
  if (got.type !== expected.type || `${got.shape}` !== `${expected.shape}`) return NaN;
  let largest = 0;
  for (let k = 0; k < expected.data.length; ++k)
    largest = Math.max(largest, Math.abs(got.data[k] - expected.data[k]));
  return largest / (scale ?? scaleOf(expected.data));
}

/** Runs all steps of a check in one session; returns the largest error and whose it is. */
async function runCheck(runtime, check, read) {
  const data = await read(check.data);
  const model = runtime.load(await read(check.model));
  let worst = { error: 0, output: "" };
  let before = {};
  for (const step of check.steps) {
    const feeds = step.inputs.map((entry) => [entry.name, readTensor(data, entry)]);
    for (const [to, of] of Object.entries(step.carried)) feeds.push([to, before[of]]);
    before = model.run(Object.fromEntries(feeds));
    for (const entry of step.outputs) {
      const expected = readTensor(data, entry);
      const error = errorOf(before[entry.name], expected, check.scales[entry.name]);
      if (Number.isNaN(error)) return { error, output: entry.name };
      if (error >= worst.error) worst = { error, output: entry.name };
    }
  }
  model.release();
  return worst;
}

/**
 * Runs checks, each in an instance of its own.
 * @param read gives the bytes of a file of the bundle, or a promise of them.
 * @param report has test(name, problem) and print(line).
 */
export async function runModels(module, { checks, limit }, read, report) {
  for (const check of checks) {
    try {
      const runtime = await Ortolan.instantiate(module);
      const { error, output } = await runCheck(runtime, check, read);
      const text = `largest error ${error.toExponential(2)} (${output})`;
      report.print(`${report.prefix}${check.name}: ${text}, memory ${runtime.memoryBytes} bytes`);
      report.test(check.name, error <= limit ? "" : `${text} is above ${limit}`);
    } catch (error) {
      report.test(check.name, error.stack);
    }
  }
}
