// Grey images {pixels: Float32Array, width, height}, (0, 0) at the centre of the top-left pixel.

/** RGBA bytes as grey in [0, 1], float32: 0.299 R + 0.587 G + 0.114 B over 255, not rounded. */
export function toGrey(rgba, width, height) {
  const pixels = new Float32Array(width * height);
  for (let i = 0; i < pixels.length; i++) {
    pixels[i] = (0.299 * rgba[4 * i] + 0.587 * rgba[4 * i + 1] + 0.114 * rgba[4 * i + 2]) / 255;
  }
  return { pixels, width, height };
}
