// Tests of the loader class itself (ortolan.mjs) and of what only a long life of the runtime shows.

import { readTensor } from "./compare.mjs";
import { Ortolan, OrtolanError } from "./ortolan.mjs";

const LOADS = 2000;
const ENDLESS = 2n ** 62n;

/** A case whose loop turns as often as its input `m` says. */
export const LOOP_CASE = "control/Loop/no_condition";

/** The error that a call throws; null if it throws none. */
function errorOf(call) {
  try {
    call();
  } catch (error) {
    if (error instanceof OrtolanError) return error;
    throw error;
  }
  return null;
}

class Api {
  constructor(report, runtime, entry, bytes) {
    Object.assign(this, { report, runtime, bytes });
    this.input = entry.inputs[0];
    this.output = entry.outputs[0].name;
    this.feed = readTensor(this.input);
  }

  expect(title, got, wanted) {
    this.report.test(title, `${got}` === `${wanted}` ? "" : `${got} instead of ${wanted}`);
  }

  expectError(title, call, name, piece = "") {
    const error = errorOf(call);
    const isRight = error !== null && error.name === name && error.message.includes(piece);
    this.report.test(title, isRight ? "" : `it must fail with ${name} "${piece}", not ${error}`);
  }

  run(model, feed = this.feed) {
    return model.run({ [this.input.name]: feed })[this.output].data;
  }

  testModel() {
    const model = this.runtime.load(this.bytes);
    const { name, shape } = this.input;
    const described = [{ name, type: "float", shape }];
    this.expect("inputs", JSON.stringify(model.inputs), JSON.stringify(described));
    this.expect("outputs", model.outputs.map((o) => `${o.name} ${o.type}`), `${this.output} float`);
    const first = this.run(model);
    this.expect("two runs", this.run(model), first);
    this.expectError("missing feed", () => model.run({}), "InvalidArgument", "is missing");
    const other = { other: this.feed };
    this.expectError("unknown feed", () => model.run(other), "InvalidArgument", 'no input "other"');
    const short = { shape, data: this.feed.data.subarray(1) };
    this.expectError("short feed", () => this.run(model, short), "InvalidArgument", "bytes");
    this.expect("a run after errors", this.run(model), first);
    const both = { [name]: this.feed, other: this.feed };
    this.expectError("a wrong feed behind a right one", () => model.run(both), "InvalidArgument");
    this.expectError("nothing is left of it", () => model.run({}), "InvalidArgument", "is missing");
    model.release();
    model.release();
    this.expectError("a run after release", () => this.run(model), "InvalidArgument", "released");
  }

  testLoading() {
    const { runtime, bytes } = this;
    const load = (content, options) => () => runtime.load(content, options);
    this.expectError("no model", load(new Uint8Array(100)), "InvalidFormat");
    this.expectError("empty file", load(new Uint8Array(0)), "InvalidFormat");
    this.expectError("cut file", load(bytes.subarray(0, bytes.length - 40)), "InvalidFormat");
    const text = { "ortolan.max_nodes": "many" };
    this.expectError("wrong option", load(bytes, text), "InvalidArgument", "max_nodes");
    const model = runtime.load(bytes, { "ortolan.max_tensor_bytes": "1" });
    this.expectError("option", () => this.run(model), "LimitExceeded");
    model.release();
  }

  testMemory() {
    const { runtime, bytes } = this;
    const before = runtime.memoryBytes;
    for (let k = 0; k < LOADS; ++k) {
      const model = runtime.load(bytes);
      this.run(model);
      model.release();
      errorOf(() => runtime.load(bytes.subarray(0, 200 + (k % 64))));
    }
    this.expect(`memory after ${LOADS} loads`, runtime.memoryBytes, before);
    this.expectError("allocation", () => runtime.allocate(0xfffffff0), "OutOfMemory");
  }
}

/**
 * @param entry a case of one float input and one float output.
 * @param bytes its model.
 */
export async function testApi(module, entry, bytes, report) {
  const api = new Api(report, await Ortolan.instantiate(module), entry, bytes);
  api.testModel();
  api.testLoading();
  api.testMemory();
}

/** The limit of time ends a loop, and the run after it works. */
export async function testTime(module, entry, bytes, report) {
  const runtime = await Ortolan.instantiate(module);
  const feeds = Object.fromEntries(entry.inputs.map((input) => [input.name, readTensor(input)]));
  const begin = performance.now();
  const model = runtime.load(bytes, { "ortolan.max_milliseconds": "100" });
  const endless = { ...feeds, m: { ...feeds.m, data: BigInt64Array.of(ENDLESS) } };
  const message = errorOf(() => model.run(endless))?.message ?? "it ended";
  const seconds = (performance.now() - begin) / 1000;
  const isRight = message.includes("longer than 100 milliseconds") && seconds < 10;
  report.test("limit of time", isRight ? "" : `after ${seconds} s: ${message}`);
  const { data } = model.run(feeds)[entry.outputs[0].name];
  const wanted = readTensor(entry.outputs[0]).data;
  report.test("a run after the limit of time", `${data}` === `${wanted}` ? "" : `${data}`);
  model.release();
}
