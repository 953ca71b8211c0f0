// Makes what the web runners need by the project's own Python tools: the modules and the data.

import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { delimiter, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

export const ROOT = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
export const WASM = join(ROOT, "build", "web");

/** The modules by the name of their instruction set. */
export const VARIANTS = {
  simd128: { target: "web", file: "ortolan.wasm", isRelaxed: false },
  relaxed: { target: "web-relaxed", file: "ortolan.relaxed.wasm", isRelaxed: true },
};

/** The kernels of `ortolan build`, which has other ways for some. */
export const SMALL = { target: "web", isSmall: true, isRelaxed: false };

/** Runs Python (ORTOLAN_PYTHON) in the repository; returns the last line that it prints. */
function python(...args) {
  const paths = [join(ROOT, "src"), join(ROOT, "tests"), process.env.PYTHONPATH].filter(Boolean);
  const output = execFileSync(process.env.ORTOLAN_PYTHON || "python3", args, {
    cwd: ROOT,
    env: { ...process.env, PYTHONPATH: paths.join(delimiter) },
    stdio: ["ignore", "pipe", "inherit"],
    encoding: "utf8",
  });
  return output.trim().split("\n").at(-1);
}

/** Builds a variant, if a source changed, and returns the bytes of the module. */
export function buildVariant({ target, isSmall }) {
  const [folder, how] = isSmall ? [`${WASM}-small`, ["--small"]] : [WASM, []];
  return readFileSync(python("-m", "ortolan.build.host", "--target", target, ...how, "-o", folder));
}

/** The folder of the operator cases and their index, as tests/cases_bundle.py says. */
export function makeCases() {
  const folder = python(join("tests", "cases_bundle.py"), join(ROOT, "build", "cases"));
  return { folder, cases: JSON.parse(readFileSync(join(folder, "cases.json"), "utf8")) };
}

/** The folder of the models' checks and their index, as tests/models_bundle.py says. */
export function makeModels() {
  const folder = python(join("tests", "models_bundle.py"), join(ROOT, "build", "models"));
  return { folder, index: JSON.parse(readFileSync(join(folder, "models.json"), "utf8")) };
}
