// Runs the WebAssembly runtime from JavaScript, in Node 18 or later and in browsers: a class over
// the C interface of native/include/ortolan/ortolan.h, without dependencies.

const INPUT = 0;
const OUTPUT = 1;
const MAX_RANK = 8;
const UNKNOWN_RANK = 0xffffffff;
// OrtolanTensor on a machine of 32 bits; dims are 64 bits wide and aligned so.
const TENSOR = { size: 0, type: 4, rank: 8, data: 12, bytes: 16, dims: 24, length: 88 };

const STATUS = {
  1: "Fail",
  2: "InvalidArgument",
  3: "NoSuchFile",
  4: "NoModel",
  9: "NotImplemented",
  10: "InvalidGraph",
  100: "OutOfMemory",
  101: "LimitExceeded",
  102: "Cancelled",
  103: "InvalidFormat",
};

// ONNX's number, the array that shows the elements, and how many of its entries an element has.
// Types that JavaScript lacks come as the bits that they are.
const TYPES = {
  float: [1, Float32Array, 1],
  uint8: [2, Uint8Array, 1],
  int8: [3, Int8Array, 1],
  uint16: [4, Uint16Array, 1],
  int16: [5, Int16Array, 1],
  int32: [6, Int32Array, 1],
  int64: [7, BigInt64Array, 1],
  string: [8, Uint8Array, 1],
  bool: [9, Uint8Array, 1],
  float16: [10, Uint16Array, 1],
  double: [11, Float64Array, 1],
  uint32: [12, Uint32Array, 1],
  uint64: [13, BigUint64Array, 1],
  complex64: [14, Float32Array, 2],
  complex128: [15, Float64Array, 2],
  bfloat16: [16, Uint16Array, 1],
  float8e4m3fn: [17, Uint8Array, 1],
  float8e4m3fnuz: [18, Uint8Array, 1],
  float8e5m2: [19, Uint8Array, 1],
  float8e5m2fnuz: [20, Uint8Array, 1],
  uint4: [21, Uint8Array, 1],
  int4: [22, Uint8Array, 1],
  float4e2m1: [23, Uint8Array, 1],
  float8e8m0: [24, Uint8Array, 1],
  uint2: [25, Uint8Array, 1],
  int2: [26, Uint8Array, 1],
};
const TYPE_NAMES = Object.fromEntries(Object.entries(TYPES).map(([name, [n]]) => [n, name]));

/** What the runtime refused: `code` is its status, `name` the status in words. */
export class OrtolanError extends Error {
  constructor(code, text) {
    super(text);
    this.code = code;
    this.name = STATUS[code] ?? `Status${code}`;
  }
}

/** A typed array over bytes of an element type; a copy only if their place is not aligned. */
export function typedArray(type, bytes) {
  const [, Kind] = TYPES[type];
  const isAligned = bytes.byteOffset % Kind.BYTES_PER_ELEMENT === 0;
  const place = isAligned ? bytes : new Uint8Array(bytes);
  return new Kind(place.buffer, place.byteOffset, bytes.byteLength / Kind.BYTES_PER_ELEMENT);
}

// The smallest use of the proposal: i8x16.relaxed_swizzle of two splats.
const RELAXED_PROBE = new Uint8Array([
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 15, 1, 13, 0, 65, 0, 253, 15,
  65, 0, 253, 15, 253, 128, 2, 11,
]);

/** Whether this engine runs modules with relaxed SIMD. */
export function hasRelaxedSimd() {
  return WebAssembly.validate(RELAXED_PROBE);
}

// What the module asks of the page: the time, for `ortolan.max_milliseconds` and profiles.
const IMPORTS = { ortolan: { now: () => performance.now() } };

/** The runtime with a memory of its own. */
export class Ortolan {
  /** @param source bytes of the module, or a compiled WebAssembly.Module. */
  static async instantiate(source) {
    const isCompiled = source instanceof WebAssembly.Module;
    const module = isCompiled ? source : await WebAssembly.compile(source);
    return new Ortolan((await WebAssembly.instantiate(module, IMPORTS)).exports);
  }

  constructor(exports) {
    this.exports = exports;
  }

  get version() {
    return this.text(this.exports.ortolan_version());
  }

  get instructionSet() {
    return this.text(this.exports.ortolan_instruction_set());
  }

  /** Bytes of the memory; it grows and never shrinks. */
  get memoryBytes() {
    return this.exports.memory.buffer.byteLength;
  }

  /**
   * Loads a model in ORT format.
   * @param bytes Uint8Array with the file; it is copied.
   * @param options keys and values as the C header has them, e.g. {"ortolan.max_nodes": "100"}.
   */
  load(bytes, options = {}) {
    return new Model(this, bytes, options);
  }

  // Memory may move when it grows, so that no view is kept.
  view() {
    return new DataView(this.exports.memory.buffer);
  }

  bytesAt(address, length) {
    return new Uint8Array(this.exports.memory.buffer, address >>> 0, length);
  }

  text(address) {
    if (address === 0) return "";
    const memory = new Uint8Array(this.exports.memory.buffer);
    const end = memory.indexOf(0, address >>> 0);
    return new TextDecoder().decode(memory.subarray(address >>> 0, end));
  }

  allocate(length) {
    const address = this.exports.ortolan_allocate(length) >>> 0;
    if (address === 0 && length > 0) throw new OrtolanError(100, `no memory for ${length} bytes`);
    return address;
  }

  put(bytes) {
    const address = this.allocate(Math.max(bytes.byteLength, 1));
    this.bytesAt(address, bytes.byteLength).set(bytes);
    return { address, length: Math.max(bytes.byteLength, 1) };
  }

  free({ address, length }) {
    this.exports.ortolan_deallocate(address, length);
  }

  /** Calls `use` with addresses of zero-terminated texts, null for a missing one. */
  withTexts(texts, use) {
    const places = texts.map((text) => this.put(new TextEncoder().encode(`${text}\0`)));
    try {
      return use(places.map((place) => place.address));
    } finally {
      places.forEach((place) => this.free(place));
    }
  }

  readTensor(address) {
    const view = this.view();
    const rank = view.getUint32(address + TENSOR.rank, true);
    const known = rank === UNKNOWN_RANK ? 0 : rank;
    const dims = Array.from({ length: known }, (_, axis) =>
      Number(view.getBigInt64(address + TENSOR.dims + 8 * axis, true)),
    );
    return {
      type: TYPE_NAMES[view.getInt32(address + TENSOR.type, true)],
      shape: rank === UNKNOWN_RANK ? null : dims,
      data: view.getUint32(address + TENSOR.data, true),
      bytes: view.getUint32(address + TENSOR.bytes, true),
    };
  }

  writeTensor(address, type, shape, data, bytes) {
    const view = this.view();
    view.setUint32(address + TENSOR.size, TENSOR.length, true);
    view.setInt32(address + TENSOR.type, type, true);
    view.setUint32(address + TENSOR.rank, shape.length, true);
    view.setUint32(address + TENSOR.data, data, true);
    view.setUint32(address + TENSOR.bytes, bytes, true);
    shape.slice(0, MAX_RANK).forEach((size, axis) => {
      view.setBigInt64(address + TENSOR.dims + 8 * axis, BigInt(size), true);
    });
  }
}

/** A loaded model with one run; `release` gives its memory back. */
export class Model {
  constructor(runtime, bytes, options) {
    this.runtime = runtime;
    this.exports = runtime.exports;
    this.file = runtime.put(bytes);
    this.size = bytes.byteLength;
    this.handle = 0;
    this.run_ = 0;
    this.scratch = runtime.put(new Uint8Array(TENSOR.length));
    try {
      this.load(options);
      this.inputs = this.describe(INPUT);
      this.outputs = this.describe(OUTPUT);
    } catch (error) {
      this.release();
      throw error;
    }
  }

  load(options) {
    const runtime = this.runtime;
    const pairs = Object.entries(options).flat();
    const result = this.scratch.address;
    const code = runtime.withTexts(pairs, (texts) => {
      const list = runtime.put(new Uint8Array(new Uint32Array(texts).buffer));
      const given = [this.file.address, this.size, list.address, texts.length / 2];
      const status = this.exports.ortolan_model_load(...given, 0, result);
      this.handle = runtime.view().getUint32(result, true);
      runtime.free(list);
      return status;
    });
    if (code !== 0) throw this.error(code, this.exports.ortolan_model_error(this.handle));
    this.newRun();
  }

  newRun() {
    this.exports.ortolan_run_release(this.run_);
    const status = this.exports.ortolan_run_create(this.handle, this.scratch.address);
    this.run_ = this.runtime.view().getUint32(this.scratch.address, true);
    this.check(status);
  }

  /** Name, type and shape of each argument; -1 is an unknown dimension, null an unknown shape. */
  describe(side) {
    const { runtime, exports } = this;
    return Array.from({ length: exports.ortolan_model_count(this.handle, side) }, (_, index) => {
      runtime.writeTensor(this.scratch.address, 0, [], 0, 0);
      exports.ortolan_model_tensor(this.handle, side, index, this.scratch.address);
      const { type, shape } = runtime.readTensor(this.scratch.address);
      const name = runtime.text(exports.ortolan_model_name(this.handle, side, index));
      return { name, type, shape };
    });
  }

  /**
   * Runs the model.
   * @param feeds by input name: {data: typed array, shape: [..]}.
   * @returns by output name: {type, shape, data}, copied out of the runtime's memory.
   */
  run(feeds) {
    if (this.file === null) throw new OrtolanError(2, "the model was released");
    const fed = [];
    try {
      try {
        for (const [name, tensor] of Object.entries(feeds)) fed.push(this.feed(name, tensor));
      } catch (error) {
        this.newRun(); // without those that it has already
        throw error;
      }
      this.check(this.exports.ortolan_run_execute(this.run_));
      return Object.fromEntries(this.outputs.map(({ name }, k) => [name, this.take(k)]));
    } finally {
      fed.forEach((place) => this.runtime.free(place));
    }
  }

  feed(name, { data, shape }) {
    const { runtime, exports } = this;
    const index = this.inputs.findIndex((input) => input.name === name);
    if (index < 0) throw new OrtolanError(2, `the model has no input "${name}"`);
    const [number] = TYPES[this.inputs[index].type];
    const place = runtime.put(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
    runtime.writeTensor(this.scratch.address, number, shape, place.address, data.byteLength);
    const code = exports.ortolan_run_input(this.run_, index, this.scratch.address);
    if (code !== 0) runtime.free(place);
    this.check(code);
    return place;
  }

  take(index) {
    const { runtime, exports } = this;
    const value = exports.ortolan_run_take(this.run_, index);
    if (value === 0) throw new OrtolanError(1, `output ${index} was not made`);
    runtime.writeTensor(this.scratch.address, 0, [], 0, 0);
    this.check(exports.ortolan_value_tensor(value, this.scratch.address));
    const { type, shape, data, bytes } = runtime.readTensor(this.scratch.address);
    const copy = runtime.bytesAt(data, bytes).slice();
    exports.ortolan_value_release(value);
    return { type, shape, data: typedArray(type, copy) };
  }

  check(code) {
    if (code !== 0) throw this.error(code, this.exports.ortolan_run_error(this.run_));
  }

  error(code, text) {
    return new OrtolanError(code, this.runtime.text(text));
  }

  /** Frees everything; the model must not be used after it. */
  release() {
    if (this.file === null) return;
    this.exports.ortolan_run_release(this.run_);
    this.exports.ortolan_model_release(this.handle);
    this.runtime.free(this.scratch);
    this.runtime.free(this.file);
    this.run_ = this.handle = 0;
    this.file = null;
  }
}
