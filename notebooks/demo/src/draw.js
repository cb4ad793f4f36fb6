// Pictures out: one or two pictures on a canvas, with keypoints and the lines of matches.

const GAP = 8; // CSS pixels between two pictures
const NARROW = 640; // CSS pixels: below this width two pictures are one above the other
const RADIUS = 2.5; // CSS pixels of a keypoint's mark on a view of FULL CSS pixels or more; less on a smaller one
const FULL = 900;

/** Draws pictures [{canvas, keypoints, shown}], `shown` keypoints of each, and matches [[i, j], ...] between two. */
export function draw(view, pictures, matches, width) {
  const ratio = window.devicePixelRatio || 1;
  const places = layout(pictures.map(({ canvas }) => canvas), width);
  const height = Math.max(...places.map((place) => place.y + place.height));
  view.width = Math.round(width * ratio);
  view.height = Math.round(height * ratio);
  view.style.height = `${height}px`;
  const context = view.getContext("2d");
  context.scale(ratio, ratio);
  pictures.forEach(({ canvas }, k) => {
    const { x, y, width, height } = places[k];
    context.drawImage(canvas, x, y, width, height);
  });
  const at = (k, i) => [0, 1].map((axis) => project(pictures[k], places[k], i, axis));
  drawMatches(context, matches, at);
  pictures.forEach(({ shown }, k) => {
    const matched = new Set(matches.map((pair) => pair[k]));
    const radius = RADIUS * Math.min(1, Math.max(0.6, places[k].width / FULL));
    for (let i = 0; i < shown; i++) {
      const ring = pictures.length === 1 || matched.has(i);
      (ring ? drawRing : drawDot)(context, at(k, i), radius);
    }
  });
}

/** Where the pictures lie: {x, y, width, height, scale} in CSS pixels. None is larger than its own pixels allow. */
function layout(canvases, width) {
  const stacked = canvases.length === 1 || width < NARROW;
  if (stacked) {
    let y = 0;
    return canvases.map((canvas) => {
      const scale = Math.min(width / canvas.width, tallest() / canvas.height);
      const place = { x: (width - scale * canvas.width) / 2, y, ...size(canvas, scale) };
      y += place.height + GAP;
      return place;
    });
  }
  const shares = canvases.map((canvas) => canvas.width / canvas.height); // of equal height
  const height = Math.min((width - GAP) / (shares[0] + shares[1]), tallest());
  const left = (width - GAP - height * (shares[0] + shares[1])) / 2;
  return canvases.map((canvas, k) => {
    return { x: left + k * (height * shares[0] + GAP), y: 0, ...size(canvas, height / canvas.height) };
  });
}

const tallest = () => Math.max(320, 0.8 * window.innerHeight);
const size = (canvas, scale) => ({ width: scale * canvas.width, height: scale * canvas.height, scale });

/** The x (axis 0) or y of a keypoint on the view; the centre of a picture's first pixel is half a pixel from its edge. */
function project({ keypoints }, place, i, axis) {
  return (axis ? place.y : place.x) + (keypoints[2 * i + axis] + 0.5) * place.scale;
}

function drawMatches(context, matches, at) {
  context.lineWidth = 1;
  matches.forEach(([i, j], k) => {
    context.strokeStyle = `hsl(${(k * 137.5) % 360} 85% 60% / 0.6)`; // neighbours in the list differ in hue
    context.beginPath();
    context.moveTo(...at(0, i));
    context.lineTo(...at(1, j));
    context.stroke();
  });
}

function drawRing(context, [x, y], radius) {
  for (const [colour, lineWidth] of [["rgb(0 0 0 / 0.6)", radius], ["#ffd23f", radius / 2]]) {
    context.strokeStyle = colour;
    context.lineWidth = lineWidth;
    context.beginPath();
    context.arc(x, y, radius, 0, 2 * Math.PI);
    context.stroke();
  }
}

/** A keypoint without a match. */
function drawDot(context, [x, y], radius) {
  context.fillStyle = "rgb(255 255 255 / 0.7)";
  context.beginPath();
  context.arc(x, y, 0.6 * radius, 0, 2 * Math.PI);
  context.fill();
}
