// Pictures in: a file or a frame of the webcam as a canvas, reduced to a longest side.

export const LONGEST_FILE = 1280; // pixels
export const LONGEST_FRAME = 480;

/** The canvas of an image file. Throws an Error of one line where the file is no image. */
export async function readFile(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { colorSpaceConversion: "none" });
  } catch {
    throw new Error(`${file.name} is not an image that this browser can read`);
  }
  return reduced(bitmap, bitmap.width, bitmap.height, LONGEST_FILE);
}

/** The video of the webcam, playing. Throws an Error of one line where there is none. */
export async function openWebcam() {
  if (!navigator.mediaDevices?.getUserMedia) throw new Error("The webcam needs https or localhost");
  try {
    const constraints = { video: { facingMode: "environment", width: { ideal: 640 } }, audio: false };
    const video = document.createElement("video");
    video.srcObject = await navigator.mediaDevices.getUserMedia(constraints);
    video.muted = video.playsInline = true;
    await video.play();
    return video;
  } catch (error) {
    throw new Error(error.name === "NotAllowedError" ? "The webcam is not allowed" : "There is no webcam here");
  }
}

/** Ends the video of the webcam. */
export function closeWebcam(video) {
  for (const track of video.srcObject.getTracks()) track.stop();
}

/** The canvas of the current frame of a video. */
export function readFrame(video) {
  return reduced(video, video.videoWidth, video.videoHeight, LONGEST_FRAME);
}

function reduced(source, width, height, longest) {
  const scale = Math.min(1, longest / Math.max(width, height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(scale * width));
  canvas.height = Math.max(1, Math.round(scale * height));
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.drawImage(source, 0, 0, canvas.width, canvas.height);
  return canvas;
}
