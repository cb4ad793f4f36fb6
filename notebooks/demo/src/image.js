// Grey images {pixels: Float32Array, width, height}, (0, 0) at the centre of the top-left pixel.

/** RGBA bytes as grey in [0, 1], float32: 0.299 R + 0.587 G + 0.114 B over 255, not rounded. */
export function toGrey(rgba, width, height) {
  const pixels = new Float32Array(width * height);
  for (let i = 0; i < pixels.length; i++) {
    pixels[i] = (0.299 * rgba[4 * i] + 0.587 * rgba[4 * i + 1] + 0.114 * rgba[4 * i + 2]) / 255;
  }
  return { pixels, width, height };
}

/** A grey image smoothed by a Gaussian of `sigma` pixels; its edge is repeated. */
export function blur(image, sigma) {
  const radius = Math.ceil(3 * sigma);
  const kernel = Array.from({ length: 2 * radius + 1 }, (_, i) => Math.exp(-((i - radius) ** 2) / (2 * sigma ** 2)));
  const sum = kernel.reduce((a, b) => a + b);
  const weights = kernel.map((weight) => weight / sum);
  const { width, height } = image;
  const rows = filter(image.pixels, width, height, weights, 1, width);
  return { pixels: filter(rows, height, width, weights, width, 1), width, height };
}

/** Filters `count` lines of `length` pixels; `step` pixels lie between neighbours of a line, `stride` between lines. */
function filter(pixels, length, count, weights, step, stride) {
  const found = new Float32Array(pixels.length);
  const radius = (weights.length - 1) / 2;
  for (let line = 0; line < count; line++) {
    for (let i = 0; i < length; i++) {
      let sum = 0;
      for (let k = -radius; k <= radius; k++) {
        const at = Math.min(Math.max(i + k, 0), length - 1);
        sum += weights[k + radius] * pixels[line * stride + at * step];
      }
      found[line * stride + i * step] = sum;
    }
  }
  return found;
}

/** The value of a grey image at (x, y) pixels, bilinear; outside, that of the nearest pixel. */
export function sample(image, x, y) {
  const { pixels, width, height } = image;
  const u = Math.min(Math.max(x, 0), width - 1);
  const v = Math.min(Math.max(y, 0), height - 1);
  const left = Math.min(Math.floor(u), Math.max(width - 2, 0));
  const top = Math.min(Math.floor(v), Math.max(height - 2, 0));
  const [right, below] = [Math.min(left + 1, width - 1), Math.min(top + 1, height - 1)];
  const upper = pixels[top * width + left] * (1 - u + left) + pixels[top * width + right] * (u - left);
  const lower = pixels[below * width + left] * (1 - u + left) + pixels[below * width + right] * (u - left);
  return upper * (1 - v + top) + lower * (v - top);
}
