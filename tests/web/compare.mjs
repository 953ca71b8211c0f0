// The rule of tests/cases_lib.py (`differences`): when two tensors count as equal.

import { typedArray } from "./ortolan.mjs";

const DEFAULT_TOLERANCE = 1e-5;
const FLOOR = 1e-7;

/** Bytes of a text in base64. */
export function fromBase64(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

/** A tensor of an index (tests/cases_bundle.py) as the runtime takes it. */
export function readTensor({ type, shape, data }) {
  return { type, shape, data: typedArray(type, fromBase64(data)) };
}

function bytesOf({ buffer, byteOffset, byteLength }) {
  return new Uint8Array(buffer, byteOffset, byteLength);
}

/** The largest finite magnitude, at least 1e-30. */
export function scaleOf(numbers) {
  let scale = 1e-30;
  for (const x of numbers) if (Number.isFinite(x)) scale = Math.max(scale, Math.abs(x));
  return scale;
}

/** What is wrong with a result; empty when nothing is. */
export function differences(got, expected, tolerance = null) {
  if (got.type !== expected.type || `${got.shape}` !== `${expected.shape}`)
    return `${got.type}[${got.shape}] instead of ${expected.type}[${expected.shape}]`;
  if (got.data.length !== expected.data.length) return `${got.data.length} elements`;
  if (expected.type !== "float" && expected.type !== "double") {
    const [a, b] = [bytesOf(got.data), bytesOf(expected.data)];
    return a.every((byte, k) => byte === b[k]) ? "" : "elements differ";
  }
  const bound = Math.max((tolerance ?? DEFAULT_TOLERANCE) * scaleOf(expected.data), FLOOR);
  let error = 0;
  for (let k = 0; k < expected.data.length; ++k) {
    const [a, b] = [got.data[k], expected.data[k]];
    if (!Number.isFinite(b)) {
      if (a === b || (a !== a && b !== b)) continue;
      return `${a} instead of ${b} at ${k}`;
    }
    const difference = Math.abs(a - b);
    // Not difference > bound: a NaN must not pass.
    if (!(difference <= bound)) error = Number.isNaN(error) ? error : Math.max(error, difference);
  }
  return error === 0 ? "" : `off by ${error}, ${bound} is allowed`;
}
