// Builds dist/: the page, its script and worker, onnxruntime's WebAssembly and the detector as ONNX.
// PYTHON names the interpreter in which kp is installed (default: python); WEIGHTS the detector's weights.
import { execFileSync } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const dist = join(here, "dist");
const python = process.env.PYTHON ?? "python";
const wasm = "ort-wasm-simd-threaded.wasm";

mkdirSync(dist, { recursive: true });
await build({
  entryPoints: ["main.js", "worker.js"].map((name) => join(here, "src", name)),
  outdir: dist,
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  legalComments: "linked", // the licences lie beside the scripts
  logLevel: "warning",
});
copyFileSync(createRequire(import.meta.url).resolve(`onnxruntime-web/${wasm}`), join(dist, wasm));
for (const name of ["index.html", "style.css"]) copyFileSync(join(here, "src", name), join(dist, name));

const model = join(dist, "kp.onnx");
if (process.argv.includes("--keep-model") && existsSync(model)) {
  console.log("kept dist/kp.onnx");
} else {
  // The file has the usual threshold of the score before it is ranked; the slider is for the score after that.
  const options = ["--keypoints", "2048", "--weights", process.env.WEIGHTS ?? "described"];
  const root = join(here, "..", "..");
  execFileSync(python, ["-m", "kp", "export", model, ...options], { cwd: root, stdio: "inherit" });
}
console.log(`built ${dist}`);
