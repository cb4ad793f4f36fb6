// Mutual nearest neighbours of descriptors.
const RATIO = 0.85; // of the distances to the nearest and to the second nearest descriptor

/** Pairs [i, j] of descriptors (N * size) and (M * size): mutual nearest neighbours that the ratio test accepts. */
export function match(descriptors0, descriptors1, size) {
  const [n, m] = [descriptors0.length / size, descriptors1.length / size];
  const best0 = { index: new Int32Array(n).fill(-1), first: new Float32Array(n).fill(-2), second: new Float32Array(n).fill(-2) };
  const best1 = { index: new Int32Array(m).fill(-1), first: new Float32Array(m).fill(-2) };
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < m; j++) {
      let similarity = 0;
      for (let d = 0; d < size; d++) similarity += descriptors0[i * size + d] * descriptors1[j * size + d];
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
