// Runs the checks of real models that tests/models_bundle.py writes; for Node and for browsers.

import { scaleOf } from "./compare.mjs";
import { Ortolan, typedArray } from "./ortolan.mjs";

function readTensor(data, { type, shape, offset, bytes }) {
  return { type, shape, data: typedArray(type, data.subarray(offset, offset + bytes)) };
}

/** The numbers of a tensor; JavaScript has no array for float16 everywhere. */
function numbersOf({ type, data }) {
  return type === "float16" ? Float64Array.from(data, fromHalf) : data;
}

function fromHalf(bits) {
  const [sign, exponent, mantissa] = [bits >> 15 ? -1 : 1, (bits >> 10) & 31, bits & 1023];
  if (exponent === 31) return mantissa ? NaN : sign * Infinity;
  return exponent ? sign * (1024 + mantissa) * 2 ** (exponent - 25) : sign * mantissa * 2 ** -24;
}

/** Whether the largest element along an axis is the same one everywhere. */
function decideAlike(got, expected, shape, axis) {
  const at = axis < 0 ? axis + shape.length : axis;
  const [outer, inner] = [shape.slice(0, at), shape.slice(at + 1)].map((dims) =>
    dims.reduce((a, b) => a * b, 1),
  );
  const largest = (data, start) => {
    let best = 0;
    for (let k = 1; k < shape[at]; ++k)
      if (data[start + k * inner] > data[start + best * inner]) best = k;
    return best;
  };
  for (let o = 0; o < outer; ++o)
    for (let i = 0; i < inner; ++i) {
      const start = o * shape[at] * inner + i;
      if (largest(got, start) !== largest(expected, start)) return false;
    }
  return true;
}

/** The rules of tests/models_lib.py (`judge`): the largest relative error, and what is wrong. */
export function judge(got, expected, { limit = 1e-3, part = 0.01, scale, quantum, axis } = {}) {
  if (got.type !== expected.type || `${got.shape}` !== `${expected.shape}`)
    return { error: NaN, problem: `${got.type}[${got.shape}] is another tensor` };
  if (!["float", "double", "float16"].includes(expected.type)) {
    const differ = expected.data.filter((x, k) => x !== got.data[k]).length;
    return { error: differ ? Infinity : 0, problem: differ && `${differ} elements differ` };
  }
  const [a, b] = [numbersOf(got), numbersOf(expected)];
  let [largest, steps, moved] = [0, 0, 0];
  for (let k = 0; k < b.length; ++k) {
    const difference = Math.abs(a[k] - b[k]);
    largest = Math.max(largest, difference); // NaN stays NaN
    if (quantum && Math.round(difference / quantum) > 0) ++moved;
    if (quantum) steps = Math.max(steps, Math.round(difference / quantum));
  }
  const error = largest / (scale ?? scaleOf(b));
  let problem = error <= limit ? "" : `above ${limit}`;
  if (quantum) problem = steps <= 1 && moved <= part * b.length ? "" : "more than a quantum";
  if (!problem && axis != null && !decideAlike(a, b, expected.shape, axis))
    problem = "another decision";
  return { error, problem };
}

/** Runs all steps of a check in one session; the largest error, whose it is, and what is wrong. */
async function runCheck(runtime, check, part, read) {
  const data = await read(check.data);
  const model = runtime.load(await read(check.model));
  const worst = { error: 0, output: "", problem: "" };
  let before = {};
  for (const step of check.steps) {
    const feeds = step.inputs.map((entry) => [entry.name, readTensor(data, entry)]);
    for (const [to, of] of Object.entries(step.carried)) feeds.push([to, before[of]]);
    before = model.run(Object.fromEntries(feeds));
    for (const entry of step.outputs) {
      const rules = { ...entry, limit: check.limit, part };
      const { error, problem } = judge(before[entry.name], readTensor(data, entry), rules);
      if (!(error <= worst.error)) [worst.error, worst.output] = [error, entry.name];
      worst.problem ||= problem && `${entry.name}: ${problem}`;
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
export async function runModels(module, { checks, part }, read, report) {
  for (const check of checks) {
    if (check.refusal && check.not_yet) {
      report.skip(check.name, `cannot run yet: ${check.not_yet}`);
      continue;
    }
    if (check.containers) {
      report.skip(check.name, "sequences and maps have no place in the bundle");
      continue;
    }
    try {
      if (check.refusal) throw new Error(check.refusal);
      const runtime = await Ortolan.instantiate(module);
      const { error, output, problem } = await runCheck(runtime, check, part, read);
      const text = `largest error ${error.toExponential(2)} (${output})`;
      report.print(`${report.prefix}${check.name}: ${text}, memory ${runtime.memoryBytes} bytes`);
      report.test(check.name, problem && `${text}; ${problem}`);
    } catch (error) {
      report.test(check.name, error.stack);
    }
  }
}

const float = (...numbers) => ({ type: "float", shape: [numbers.length], data: numbers });
const half = (...bits) => ({ type: "float16", shape: [bits.length], data: Uint16Array.from(bits) });
const long = (...numbers) => ({ type: "int64", shape: [numbers.length], data: numbers.map(BigInt) });
const JUDGED = [
  [float(1, 2), float(1, 2), {}, true],
  [float(1.5, 2), float(1, 2), {}, false],
  [float(NaN, 2), float(1, 2), {}, false],
  [float(1, 2.0001), float(1, 2), {}, true],
  [float(1, 1.0005), float(1.0005, 1), { axis: -1 }, false],
  [float(1, 1.0005), float(1, 1.0006), { axis: 0 }, true],
  [float(1.5, ...Array(199).fill(1)), float(...Array(200).fill(1)), { quantum: 0.5 }, true],
  [float(2, ...Array(199).fill(1)), float(...Array(200).fill(1)), { quantum: 0.5 }, false],
  [float(1.5, 1.5, 1.5, 1), float(1, 1, 1, 1), { quantum: 0.5 }, false],
  [half(0x3c00, 1), half(0x3c00, 2), {}, true],
  [half(0x3c00, 1), half(0x3c40, 1), {}, false],
  [long(1, 2), long(1, 2), {}, true],
  [long(1, 3), long(1, 2), {}, false],
  [long(1, 2), float(1, 2), {}, false],
];

/** Shows that the rules can fail. */
export function testJudge(report) {
  JUDGED.forEach(([got, expected, rules, isRight], k) => {
    const { problem } = judge(got, expected, rules);
    report.test(`judged ${k}`, !problem === isRight ? "" : `"${problem}" was said`);
  });
}
