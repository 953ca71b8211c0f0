// Runs a model in a built WebAssembly module: node probe.mjs MODULE MODEL FEEDS RESULTS. The files
// are as src/ortolan/build/verify.py writes and reads them. Exit code 3: this Node cannot run it.
// With --variants instead of both files it prints domain, type and variants of each node, in a
// module that records them.
import { readFileSync, writeFileSync } from "node:fs";

const [modulePath, modelPath, feedsPath, resultsPath] = process.argv.slice(2);
const bytes = readFileSync(modulePath);
if (!WebAssembly.validate(bytes)) process.exit(3);
const module = new WebAssembly.Module(bytes);

// One processor and no threads; there are no folders, and WASI's clock stands still.
const known = { processors: () => 1, now: () => performance.now(), fd_prestat_get: () => 8 };
const imports = {};
let memory = null;
for (const { module: from, name, kind } of WebAssembly.Module.imports(module)) {
  imports[from] ??= {};
  if (kind === "memory") {
    memory = new WebAssembly.Memory({ initial: 256, maximum: 65536, shared: true });
    imports[from][name] = memory;
  } else {
    imports[from][name] = known[name] ?? (() => 0);
  }
}
const e = new WebAssembly.Instance(module, imports).exports;
memory ??= e.memory;

const TENSOR = 88;
const STRING = 8;
const view = () => new DataView(memory.buffer);
const at = (address, length) => new Uint8Array(memory.buffer, address >>> 0, length);
const take = (length) => {
  const address = e.ortolan_allocate(Math.max(length, 1));
  if (!address) throw new Error("memory is out");
  return address;
};
const text = (address) => {
  const all = at(address, memory.buffer.byteLength - address);
  return Buffer.from(all.slice(0, all.indexOf(0)));
};

const parts = [];
function words(a, b) {
  const head = Buffer.alloc(8);
  head.writeInt32LE(a, 0);
  head.writeInt32LE(b, 4);
  parts.push(head);
}
function finish() {
  writeFileSync(resultsPath, Buffer.concat(parts));
  process.exit(0);
}
function check(status, message) {
  if (status === 0) return;
  words(status, message.length);
  parts.push(message);
  finish();
}

const file = readFileSync(modelPath);
const place = take(file.length);
at(place, file.length).set(file);
const out = take(TENSOR);
const put = (string) => {
  const content = Buffer.from(string + "\0");
  const address = take(content.length);
  at(address, content.length).set(content);
  return address;
};
let options = 0;
if (feedsPath === "--variants") {
  options = take(8);
  const [key, lanes] = [put("ortolan.record_variants"), put("4")];
  view().setUint32(options, key, true);
  view().setUint32(options + 4, lanes, true);
}
let status = e.ortolan_model_load(place, file.length, options, options ? 1 : 0, 0, out);
const model = view().getUint32(out, true);
if (options && status === 0) {
  const keys = ["domain", "type", "variants"].map(put);
  const graphs = put("graphs");
  e.ortolan_model_number(model, graphs, out);
  for (let g = 0, count = view().getUint32(out, true); g < count; ++g)
    for (let n = 0; e.ortolan_model_node(model, g, n, keys[1]); ++n) {
      const words = keys.map((key) => e.ortolan_model_node(model, g, n, key));
      console.log(JSON.stringify(words.map((word) => (word ? text(word).toString() : ""))));
    }
  process.exit(0);
}
check(status, model ? text(e.ortolan_model_error(model)) : Buffer.alloc(0));
status = e.ortolan_run_create(model, out);
const run = view().getUint32(out, true);
const failure = () => (run ? text(e.ortolan_run_error(run)) : Buffer.alloc(0));
check(status, failure());

const feeds = readFileSync(feedsPath);
const HEAD = 88; // index, type, rank, reserved, 8 dims, bytes
for (let i = 0, from = 8; i < feeds.readUInt32LE(0); ++i) {
  const length = Number(feeds.readBigUInt64LE(from + 80));
  const data = take(length);
  at(data, length).set(feeds.subarray(from + HEAD, from + HEAD + length));
  const v = view();
  v.setUint32(out, TENSOR, true);
  v.setInt32(out + 4, feeds.readUInt32LE(from + 4), true);
  v.setUint32(out + 8, feeds.readUInt32LE(from + 8), true);
  v.setUint32(out + 12, data, true);
  v.setUint32(out + 16, length, true);
  at(out + 24, 64).set(feeds.subarray(from + 16, from + 80));
  check(e.ortolan_run_input(run, feeds.readUInt32LE(from), out), failure());
  from += HEAD + Math.ceil(length / 8) * 8;
}
check(e.ortolan_run_execute(run), failure());
const count = e.ortolan_model_count(model, 1);
words(0, count);
for (let i = 0; i < count; ++i) {
  const value = e.ortolan_run_take(run, i);
  view().setUint32(out, TENSOR, true);
  const isTensor = value !== 0 && e.ortolan_value_tensor(value, out) === 0;
  const v = view();
  let [type, rank, data, length] = [4, 8, 12, 16].map((k) => v.getUint32(out + k, true));
  if (!isTensor) type = rank = 0; // a sequence, a map
  if (type === 0 || type === STRING) length = 0;
  const record = Buffer.alloc(HEAD);
  record.writeUInt32LE(i, 0);
  record.writeUInt32LE(type, 4);
  record.writeUInt32LE(rank, 8);
  record.set(at(out + 24, 8 * rank), 16);
  record.writeBigUInt64LE(BigInt(length), 80);
  parts.push(record, Buffer.from(at(data, length)), Buffer.alloc((8 - (length % 8)) % 8));
}
finish();
