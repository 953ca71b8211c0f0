// Runs the checks of real models that tests/models_bundle.py writes; for Node and for browsers.

import { scaleOf } from "./compare.mjs";
import { typedArray } from "./ortolan.mjs";

function readTensor(data, { type, shape, offset, bytes }) {
  return { type, shape, data: typedArray(type, data.subarray(offset, offset + bytes)) };
}

/** The largest difference relative to the expected tensor's largest magnitude; NaN stays NaN. */
export function errorOf(got, expected, scale) {
  if (got.type !== expected.type || `${got.shape}` !== `${expected.shape}`) return NaN;
  let largest = 0;
  for (let k = 0; k < expected.data.length; ++k)
    largest = Math.max(largest, Math.abs(got.data[k] - expected.data[k]));
  return largest / (scale ?? scaleOf(expected.data));
}

/**
 * Runs all steps of a check in one session.
 * @param read gives the bytes of a file of the bundle, as a promise.
 * @returns the largest error, the output that has it, and the bytes of memory in use after it.
 */
export async function runCheck(runtime, check, read) {
  const data = await read(check.data);
  const model = runtime.load(await read(check.model));
  const worst = { error: 0, output: "" };
  try {
    let before = {};
    for (const step of check.steps) {
      const feeds = step.inputs.map((entry) => [entry.name, readTensor(data, entry)]);
      for (const [to, of] of Object.entries(step.carried)) feeds.push([to, before[of]]);
      before = model.run(Object.fromEntries(feeds));
      for (const entry of step.outputs) {
        const expected = readTensor(data, entry);
        const error = errorOf(before[entry.name], expected, check.scales[entry.name]);
        // Not >, which loses a NaN.
        if (!(error <= worst.error)) Object.assign(worst, { error, output: entry.name });
        if (Number.isNaN(error)) return { ...worst, memory: runtime.memoryBytes };
      }
    }
  } finally {
    model.release();
  }
  return { ...worst, memory: runtime.memoryBytes };
}

/** A line for a result, and the problem, empty when the error is within the limit. */
export function judge(name, { error, output, memory }, limit) {
  const line = `${name}: largest error ${error.toExponential(2)} (${output}), ${memory} bytes`;
  return { line, problem: error <= limit ? "" : `error ${error} of ${output} is above ${limit}` };
}
