// Copies and saves a result: its JSON, and the image with the heads marked.

import { at, made } from "./elements.js";
import { MANY_HEADS } from "./result.js";
import { boxLabel } from "./words.js";

// Longest side of a marked image; phones paint no larger canvas.
const MAX_MARKED = 4096;
const OUTLINE = "#000";

/**
 * The image with the heads and heat maps that the page shows, as a PNG.
 *
 * `pixels` is an `UprightImage`, `heads` is what `show` returned; boxes and colors are
 * those of the page.
 */
export async function markedImage(pixels, heads) {
  const { width, height } = pixels;
  const shrink = Math.min(1, MAX_MARKED / Math.max(width, height));
  const canvas = made("canvas");
  canvas.width = Math.max(1, Math.round(width * shrink));
  canvas.height = Math.max(1, Math.round(height * shrink));
  pixels.paint(canvas, 0, 0, width, height);
  const context = canvas.getContext("2d");
  const isShown = (element) => element?.checkVisibility();
  // The most suspicious last, so that no other covers it.
  for (const { map, square } of heads.filter((head) => isShown(head.map)).toReversed()) {
    const { x, y, side } = square;
    context.drawImage(map, x * shrink, y * shrink, side * shrink, side * shrink);
  }
  for (const head of heads.filter((head) => isShown(head.mark)).toReversed()) {
    markHead(canvas, head, heads.length > MANY_HEADS);
  }
  return new Promise((resolve, reject) => {
    const given = (blob) => (blob ? resolve(blob) : reject(new Error("no image")));
    canvas.toBlob(given, "image/png");
  });
}

/** Saves a blob as a file of that name. */
export function save(blob, name) {
  const link = made("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  // The browser reads it after the click.
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** Whether this page may copy; browsers allow it over TLS and on this machine alone. */
export function canCopy() {
  return Boolean(navigator.clipboard?.write && globalThis.ClipboardItem);
}

/** Copies a blob, which may still be a promise, to the clipboard. */
export async function copy(type, blob) {
  await navigator.clipboard.write([new ClipboardItem({ [type]: blob })]);
}

/** The name of a file beside another: "a.jpg" and "_marked.png" give "a_marked.png". */
export function besides(name, ending) {
  return name.replace(/\.[^.]*$/, "") + ending;
}

function markHead(canvas, head, isShort) {
  const context = canvas.getContext("2d");
  const color = getComputedStyle(head.mark).getPropertyValue("--mark");
  const [top, left, bottom, right] = head.box.map(
    (edge, i) => edge * (i % 2 ? canvas.width : canvas.height),
  );
  const thin = Math.max(1, Math.max(canvas.width, canvas.height) / 600);
  const line = head.isDeciding ? 4 * thin : 2 * thin;
  for (const [style, width] of [
    [OUTLINE, line + 2 * thin],
    [color, line],
  ]) {
    context.strokeStyle = style;
    context.lineWidth = width;
    context.strokeRect(left, top, right - left, bottom - top);
  }
  const text = boxLabel(head.rank, head.probability, isShort);
  const size = Math.round(10 * thin + 4);
  context.font = `600 ${size}px ${getComputedStyle(at("marks")).fontFamily}`;
  context.textBaseline = "middle";
  const width = context.measureText(text).width + 0.6 * size;
  const x = Math.max(0, Math.min(left, canvas.width - width));
  const y = top - 1.4 * size < 0 ? top : top - 1.4 * size;
  context.fillStyle = color;
  context.fillRect(x, y, width, 1.4 * size);
  context.fillStyle = OUTLINE;
  context.fillText(text, x + 0.3 * size, y + 0.7 * size);
}
