// Makes what the web runners need by the project's own Python tools: the modules and the data.

import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { delimiter, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

export const ROOT = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
export const CASES = join(ROOT, "build", "cases");
export const MODELS = join(ROOT, "build", "models");
export const WASM = join(ROOT, "build", "web");

/** The modules by the name of their instruction set. */
export const VARIANTS = {
  simd128: { target: "web", file: "ortolan.wasm", isRelaxed: false },
  relaxed: { target: "web-relaxed", file: "ortolan.relaxed.wasm", isRelaxed: true },
};

/** Runs Python (ORTOLAN_PYTHON) in the repository and shows what it prints. */
export function python(...args) {
  const paths = [join(ROOT, "src"), join(ROOT, "tests"), process.env.PYTHONPATH].filter(Boolean);
  execFileSync(process.env.ORTOLAN_PYTHON || "python3", args, {
    cwd: ROOT,
    env: { ...process.env, PYTHONPATH: paths.join(delimiter) },
    stdio: ["ignore", "inherit", "inherit"],
  });
}

/** Builds a variant, if a source changed, and returns the bytes of the module. */
export function buildVariant({ target, file }) {
  python("-m", "ortolan.build.host", "--target", target, "-o", WASM);
  return readFileSync(join(WASM, file));
}
