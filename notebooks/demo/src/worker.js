// Runs the detector and the matching apart from the page, so that the page stays responsive.
// Requests: {id, detect: {slot, rgba, width, height}} or {id, match: {counts: [n0, n1]}}; replies: {id, result | error}.
import * as ort from "onnxruntime-web/wasm";
import { toGrey } from "./image.js";
import { match } from "./match.js";

ort.env.wasm.wasmPaths = { wasm: new URL("ort-wasm-simd-threaded.wasm", self.location.href).href };
ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency) : 1;
const session = load();
const slots = [null, null]; // the descriptors of each picture, and how many numbers each has

/** The detector after a first run, in which the browser compiles the WebAssembly: it takes several times as long. */
async function load() {
  const detector = await ort.InferenceSession.create("kp.onnx", { executionProviders: ["wasm"] });
  await detector.run({ image: new ort.Tensor("float32", new Float32Array(320 * 240), [1, 1, 240, 320]) });
  return detector;
}

/** Keypoints (N * 2) and scores (N), best first, and the milliseconds that the detector took. */
async function detect({ slot, rgba, width, height }) {
  const grey = toGrey(rgba, width, height);
  const image = new ort.Tensor("float32", grey.pixels, [1, 1, height, width]);
  const detector = await session;
  const start = performance.now();
  const found = await detector.run({ image }, ["keypoints", "keypoint_scores", "valid", "descriptors"]);
  const ms = performance.now() - start;
  const count = found.valid.data.reduce((sum, valid) => sum + valid, 0); // valid places come first
  const keypoints = found.keypoints.data.slice(0, 2 * count);
  const size = found.descriptors.dims[2];
  slots[slot] = { size, descriptors: found.descriptors.data.slice(0, size * count) };
  return { keypoints, scores: found.keypoint_scores.data.slice(0, count), ms };
}

/** Pairs of the best `counts` keypoints of the two pictures. */
function matchSlots({ counts }) {
  const { size } = slots[0];
  return match(...slots.map(({ descriptors }, i) => descriptors.subarray(0, counts[i] * size)), size);
}

self.onmessage = async ({ data: { id, ready, detect: picture, match: counts } }) => {
  try {
    const result = ready ? void (await session) : picture ? await detect(picture) : matchSlots(counts);
    self.postMessage({ id, result });
  } catch (error) {
    self.postMessage({ id, error: String(error?.message ?? error).split("\n")[0] });
  }
};
