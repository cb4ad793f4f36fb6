// The page: pictures and sliders in, keypoints, matches and milliseconds out.
import { draw } from "./draw.js";
import { closeWebcam, openWebcam, readFile, readFrame } from "./pictures.js";

const $ = (id) => document.getElementById(id);
const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
const waiting = new Map(); // requests that the worker has not answered
const pictures = [null, null]; // {canvas, keypoints, scores, ms, shown}
const newest = [0, 0]; // the last request for each picture: an older answer is dropped
const prompts = [0, 1].map((slot) => $(`name${slot}`).textContent);
let matches = [];
let video = null;
let requests = 0;

worker.onmessage = ({ data: { id, result, error } }) => {
  const { resolve, reject } = waiting.get(id);
  waiting.delete(id);
  if (error) reject(new Error(error));
  else resolve(result);
};
worker.onerror = () => showError("The detector cannot be loaded: serve this folder over http, see README.md");

function ask(request, transfer = []) {
  const id = ++requests;
  worker.postMessage({ id, ...request }, transfer);
  return new Promise((resolve, reject) => waiting.set(id, { resolve, reject }));
}

async function put(slot, canvas) {
  const request = ++newest[slot];
  const { width, height } = canvas;
  const rgba = canvas.getContext("2d").getImageData(0, 0, width, height).data;
  const found = await ask({ detect: { slot, rgba, width, height } }, [rgba.buffer]);
  if (request !== newest[slot]) return;
  pictures[slot] = { canvas, ...found, shown: 0 };
  await refresh();
}

/** Applies the sliders, matches again and draws. */
async function refresh() {
  const [count, threshold] = [Number($("count").value), Number($("threshold").value)];
  $("count-value").textContent = count;
  $("threshold-value").textContent = threshold.toFixed(3).replace(/0$/, "");
  for (const picture of pictures.filter(Boolean)) {
    const below = picture.scores.findIndex((score) => !(score > threshold)); // best first
    picture.shown = Math.min(count, below < 0 ? picture.scores.length : below);
  }
  const [first, second] = pictures;
  const found = first && second ? await ask({ match: { counts: [first.shown, second.shown] } }) : [];
  if (first !== pictures[0] || second !== pictures[1]) return;
  matches = found;
  show();
}

function show() {
  const there = pictures.filter(Boolean);
  $("view").hidden = !there.length;
  $("save").hidden = !there.length || video !== null;
  $("empty").hidden = there.length > 0;
  if (!there.length) return;
  const counts = there.map(({ shown }) => shown).join(" and ");
  const times = there.map(({ ms }) => ms.toFixed(0)).join(" and ");
  const pairs = there.length > 1 ? `, ${matches.length} matches` : "";
  const rate = video ? " a frame" : "";
  $("status").textContent = `${counts} keypoints${pairs}; detector: ${times} ms${rate}`;
  $("view").setAttribute("aria-label", `${there.length > 1 ? "Two pictures" : "A picture"} with ${counts} keypoints${pairs}`);
  draw($("view"), there, there.length > 1 ? matches : [], $("view").parentElement.clientWidth);
  if (!video) saveLink(there);
}

function saveLink(there) {
  const rows = there.flatMap(({ keypoints, scores, shown }, k) =>
    Array.from({ length: shown }, (_, i) => [k, keypoints[2 * i], keypoints[2 * i + 1], scores[i]].join(",")),
  );
  URL.revokeObjectURL($("save").href);
  $("save").href = URL.createObjectURL(new Blob([["picture,x,y,score", ...rows, ""].join("\n")], { type: "text/csv" }));
}

function showError(text) {
  $("error").textContent = text;
  $("error").hidden = !text;
}

async function guarded(action) {
  showError("");
  try {
    await action();
  } catch (error) {
    showError(error.message);
  }
}

const choose = (slot, file) =>
  guarded(async () => {
    if (!file) return;
    const canvas = await readFile(file);
    if (video) stopWebcam();
    $(`name${slot}`).textContent = file.name;
    $("status").textContent = "Looking for keypoints";
    await put(slot, canvas);
  });

async function runWebcam() {
  clear();
  video = await openWebcam();
  $("webcam").textContent = "Stop the webcam";
  $("webcam").setAttribute("aria-pressed", "true");
  while (video) {
    await put(0, readFrame(video));
    await new Promise(requestAnimationFrame);
  }
}

function stopWebcam() {
  closeWebcam(video);
  video = null;
  $("webcam").textContent = "Use the webcam";
  $("webcam").setAttribute("aria-pressed", "false");
  if (pictures[0]) show();
}

function clear() {
  if (video) stopWebcam();
  for (const slot of [0, 1]) {
    newest[slot]++;
    pictures[slot] = null;
    $(`name${slot}`).textContent = prompts[slot];
    $(`file${slot}`).value = "";
  }
  matches = [];
  $("status").textContent = "Ready";
  show();
}

for (const slot of [0, 1]) {
  $(`file${slot}`).addEventListener("change", ({ target }) => choose(slot, target.files[0]));
  const zone = $(`drop${slot}`);
  for (const [name, over] of [["dragover", true], ["dragleave", false], ["drop", false]]) {
    zone.addEventListener(name, () => zone.classList.toggle("over", over));
  }
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    event.stopPropagation();
    choose(slot, event.dataTransfer.files[0]);
  });
}
window.addEventListener("dragover", (event) => event.preventDefault());
window.addEventListener("drop", (event) => {
  event.preventDefault(); // beside the two zones: the first place that is free
  [...event.dataTransfer.files].slice(0, 2).forEach((file, k) => choose(pictures[0] && !k ? 1 : k, file));
});
for (const id of ["count", "threshold"]) $(id).addEventListener("input", () => guarded(refresh));
$("webcam").addEventListener("click", () => (video ? stopWebcam() : guarded(runWebcam)));
$("clear").addEventListener("click", () => guarded(clear));
new ResizeObserver(() => show()).observe($("view").parentElement);
guarded(async () => {
  await ask({ ready: true });
  $("status").textContent = "Ready";
});
