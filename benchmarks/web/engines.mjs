// The engines that the web benchmarks time, and what is asked of each: the same code in pages and
// in Node. An engine has library(), load(), run() and results(); `where` says what lies where:
// base URLs of `modules` (node_modules) and `files`, and read(url), which gives bytes.

import { Ortolan } from "../../tests/web/ortolan.mjs";

const KINDS = {
  float32: Float32Array,
  float64: Float64Array,
  int32: Int32Array,
  int64: BigInt64Array,
  uint8: Uint8Array,
  bool: Uint8Array,
};
const WARM_SECONDS = 1;
const MOST_SAMPLES = 20000;
const LEAST_SAMPLES = 3;
// The clock of a page that is not isolated has steps of 0.1 ms: a sample takes many of them.
const SAMPLE_MS = 4;

const memories = new Set();

/** Sees the memories of every module that is made from now on. */
export function watchMemories() {
  const { Memory, instantiate, instantiateStreaming } = WebAssembly;
  WebAssembly.Memory = new Proxy(Memory, {
    construct(target, given) {
      const memory = new target(...given);
      memories.add(memory);
      return memory;
    },
  });
  const see = (made) => {
    for (const value of Object.values((made.instance ?? made).exports)) {
      if (value instanceof Memory) memories.add(value);
    }
    return made;
  };
  WebAssembly.instantiate = async (...given) => see(await instantiate(...given));
  WebAssembly.instantiateStreaming = async (...given) => see(await instantiateStreaming(...given));
}

const memoryBytes = () => [...memories].reduce((sum, memory) => sum + memory.buffer.byteLength, 0);

class OrtolanEngine {
  constructor(where, file) {
    Object.assign(this, { where, file });
  }

  async library() {
    this.runtime = await Ortolan.instantiate(await this.where.read(`${this.where.files}${this.file}`));
  }

  async load(name) {
    this.model = this.runtime.load(await this.where.read(`${this.where.files}${name}.ort`));
  }

  feed(feeds) {
    this.feeds = feeds;
  }

  run() {
    this.got = this.model.run(this.feeds);
  }

  async results() {
    return Object.values(this.got).map(({ data }) => data);
  }
}

class OrtWebEngine {
  constructor(where, file) {
    Object.assign(this, { where, file });
  }

  async library() {
    const folder = `${this.where.modules}onnxruntime-web/dist/`;
    this.ort = await import(folder + this.file);
    this.ort = this.ort.InferenceSession ? this.ort : this.ort.default;
    this.ort.env.wasm.numThreads = 1;
    this.ort.env.logLevel = "error";
    if (!this.where.isNode) this.ort.env.wasm.wasmPaths = folder;
  }

  async load(name) {
    const bytes = await this.where.read(`${this.where.files}${name}.onnx`);
    const options = { executionProviders: ["wasm"], graphOptimizationLevel: "all" };
    this.session = await this.ort.InferenceSession.create(bytes, options);
  }

  feed(feeds) {
    this.feeds = {};
    for (const [name, { dtype, data, shape }] of Object.entries(feeds)) {
      this.feeds[name] = new this.ort.Tensor(dtype, data, shape);
    }
  }

  async run() {
    this.got = await this.session.run(this.feeds);
  }

  async results() {
    return Promise.all(this.session.outputNames.map((name) => this.got[name].getData()));
  }
}

const number = (name) => Number(String(name).replace(/:.*/, "").replace(/\D/g, "") || 0);

class LiteRtEngine {
  constructor(where) {
    this.where = where;
    this.hasOtherWeights = true;
  }

  async library() {
    this.litert = await import(`${this.where.modules}@litertjs/core/dist/index.js`);
    const options = { threads: false, jspi: false };
    await this.litert.loadLiteRt(`${this.where.modules}@litertjs/core/wasm/`, options);
  }

  async load(name) {
    const options = { accelerator: "wasm", cpuOptions: { numThreads: 1 } };
    const file = `${this.where.files}${name}.tflite`;
    this.model = await this.litert.loadAndCompile(file, options);
  }

  feed(feeds) {
    const details = this.model.getInputDetails();
    const order = details.map((detail, k) => [number(detail.name), k]).sort((a, b) => a[0] - b[0]);
    this.feeds = [];
    Object.values(feeds).forEach(({ data, shape }, k) => {
      const place = order[k][1];
      const isNarrow = data instanceof BigInt64Array && details[place].dtype === "int32";
      const given = isNarrow ? Int32Array.from(data, Number) : data;
      this.feeds[place] = new this.litert.Tensor(given, shape);
    });
  }

  async run() {
    for (const tensor of this.got ?? []) tensor.delete();
    this.got = await this.model.run(this.feeds);
  }

  async results() {
    return [];
  }
}

export const ENGINES = {
  ortolan: (where) => new OrtolanEngine(where, "ortolan.relaxed.wasm"),
  "ortolan simd128": (where) => new OrtolanEngine(where, "ortolan.wasm"),
  "onnxruntime-web": (where) =>
    new OrtWebEngine(where, where.isNode ? "ort.node.min.mjs" : "ort.wasm.min.mjs"),
  "LiteRT.js": (where) => new LiteRtEngine(where),
};

/** One engine with one model. */
export class Agent {
  constructor(name, where) {
    this.where = where;
    this.engine = ENGINES[name](where);
  }

  async load(model) {
    const start = performance.now();
    await this.engine.library();
    const middle = performance.now();
    await this.engine.load(model);
    const ready = performance.now();
    return { library: middle - start, load: ready - middle, ready, memory: memoryBytes() };
  }

  /** Reads the feeds, runs once, and tells how far the results are from what is known. */
  async first(model) {
    const { files, read } = this.where;
    const bytes = await read(`${files}${model}.bin`);
    const index = JSON.parse(new TextDecoder().decode(await read(`${files}${model}.json`)));
    const tensor = ({ dtype, shape, offset, bytes: length }) => {
      const place = bytes.slice(offset, offset + length);
      return { dtype, shape, data: new KINDS[dtype](place.buffer, 0, length / KINDS[dtype].BYTES_PER_ELEMENT) };
    };
    const named = (list) => Object.fromEntries(list.map((entry) => [entry.name, tensor(entry)]));
    this.engine.feed(named(index.inputs));
    const start = performance.now();
    await this.engine.run();
    const first = performance.now() - start;
    const got = await this.engine.results();
    const known = this.engine.hasOtherWeights ? [] : index.outputs.map(tensor);
    const errors = known.map(({ dtype, data }, k) => (dtype === "float32" ? distance(got[k], data) : 0));
    return { first, memory: memoryBytes(), error: errors.length ? Math.max(...errors) : null };
  }

  async warm() {
    const start = performance.now();
    let calls = 0;
    while (performance.now() - start < WARM_SECONDS * 1000) {
      await this.engine.run();
      ++calls;
    }
    this.batch = Math.max(1, Math.ceil((SAMPLE_MS * calls) / (performance.now() - start)));
    return {};
  }

  /** Samples for some time: seconds per call. */
  async turn(seconds) {
    const found = [];
    const start = performance.now();
    for (;;) {
      const before = performance.now();
      for (let k = 0; k < this.batch; ++k) await this.engine.run();
      const now = performance.now();
      found.push((now - before) / this.batch / 1000);
      const isDone = now - start >= seconds * 1000 && found.length >= LEAST_SAMPLES;
      if (isDone || found.length >= MOST_SAMPLES) break;
    }
    found.sort((a, b) => a - b);
    return { median: found[found.length >> 1], min: found[0], calls: found.length * this.batch };
  }
}

function distance(got, known) {
  if (!got || got.length !== known.length) return Infinity;
  let apart = 0;
  let size = 1e-24;
  known.forEach((value, k) => {
    apart += (got[k] - value) ** 2;
    size += value ** 2;
  });
  return Math.sqrt(apart / size);
}

/** Giga multiply-adds a second, the best of some: `simd128` and, where it is there, `relaxed`. */
export async function peaks(bytes) {
  const { instance } = await WebAssembly.instantiate(bytes, {});
  const { madds, ...programs } = instance.exports;
  const found = {};
  for (const name of ["simd128", "relaxed"]) {
    if (!programs[name]) continue;
    const rates = [];
    for (let k = 0, count = 1e6; k < 12; ++k) {
      const start = performance.now();
      programs[name](count, 0.999, 0.001);
      const took = performance.now() - start;
      rates.push((count * madds()) / took / 1e6);
      if (took < 50) count *= 2;
    }
    found[name] = Math.max(...rates);
  }
  return found;
}
