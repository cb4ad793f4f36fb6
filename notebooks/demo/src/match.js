// Simple descriptors and matches. Nothing of this is learnt.
import { blur, sample } from "./image.js";

const SIDE = 8; // samples a side
const STEP = 3; // pixels between samples
const DIM = SIDE * SIDE;
const RATIO = 0.85; // of the distances to the nearest and to the second nearest descriptor

/** Descriptors (N * 64) of keypoints (N * 2): grey around each, turned to its gradient, with mean 0 and norm 1. */
export function describe(image, keypoints) {
  const [smooth, broad] = [blur(image, 1.5), blur(image, 4.5)];
  const count = keypoints.length / 2;
  const found = new Float32Array(count * DIM);
  for (let k = 0; k < count; k++) {
    const [x, y] = [keypoints[2 * k], keypoints[2 * k + 1]];
    const dx = sample(broad, x + 1, y) - sample(broad, x - 1, y);
    const dy = sample(broad, x, y + 1) - sample(broad, x, y - 1);
    const length = Math.hypot(dx, dy);
    const [cos, sin] = length > 0 ? [dx / length, dy / length] : [1, 0];
    const patch = found.subarray(k * DIM, (k + 1) * DIM);
    for (let i = 0; i < DIM; i++) {
      const u = STEP * ((i % SIDE) - (SIDE - 1) / 2);
      const v = STEP * (Math.floor(i / SIDE) - (SIDE - 1) / 2);
      patch[i] = sample(smooth, x + cos * u - sin * v, y + sin * u + cos * v);
    }
    normalise(patch);
  }
  return found;
}

function normalise(patch) {
  const mean = patch.reduce((a, b) => a + b) / DIM;
  const norm = Math.sqrt(patch.reduce((sum, value) => sum + (value - mean) ** 2, 0));
  for (let i = 0; i < DIM; i++) patch[i] = norm > 0 ? (patch[i] - mean) / norm : 0;
}

/** Pairs [i, j] of descriptors (N * 64) and (M * 64): mutual nearest neighbours that the ratio test accepts. */
export function match(descriptors0, descriptors1) {
  const [n, m] = [descriptors0.length / DIM, descriptors1.length / DIM];
  const best0 = { index: new Int32Array(n).fill(-1), first: new Float32Array(n).fill(-2), second: new Float32Array(n).fill(-2) };
  const best1 = { index: new Int32Array(m).fill(-1), first: new Float32Array(m).fill(-2) };
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < m; j++) {
      let similarity = 0;
      for (let d = 0; d < DIM; d++) similarity += descriptors0[i * DIM + d] * descriptors1[j * DIM + d];
      if (similarity > best0.first[i]) {
        best0.second[i] = best0.first[i];
        [best0.first[i], best0.index[i]] = [similarity, j];
      } else if (similarity > best0.second[i]) best0.second[i] = similarity;
      if (similarity > best1.first[j]) [best1.first[j], best1.index[j]] = [similarity, i];
    }
  }
  const distance = (similarity) => Math.sqrt(Math.max(0, 2 - 2 * similarity));
  const pairs = [];
  for (let i = 0; i < n; i++) {
    const j = best0.index[i];
    const distinct = distance(best0.first[i]) < RATIO * distance(best0.second[i]);
    if (j >= 0 && best1.index[j] === i && distinct) pairs.push([i, j]);
  }
  return pairs;
}
