// The pixels that the graph judges: upright, and of its size.

import { readFrameSize, readOrientation, withoutOrientation } from "./stored_image.js";

// Pixels as they are stored, like the graph's: no color profile, no alpha.
const AS_STORED = { colorSpaceConversion: "none", premultiplyAlpha: "none" };

// 5 to 8 swap the axes; then one axis or both may be mirrored: dfdetect/media/exif.py.
const SWAPPED_FROM = 5;
const MIRRORED_ROWS = [3, 4, 7, 8];
const MIRRORED_COLUMNS = [2, 3, 6, 7];

/** Decodes the bytes of a file of a media type; throws where this browser cannot. */
export async function decodeUpright(bytes, type) {
  const stored = new Blob(withoutOrientation(bytes), { type });
  const bitmap = await createImageBitmap(stored, AS_STORED);
  const size = readFrameSize(bytes) ?? bitmap;
  return new UprightImage(bitmap, size, readOrientation(bytes));
}

/** Stored pixels that are turned when they are painted; `width` and `height` upright. */
class UprightImage {
  #bitmap;
  #orientation;

  constructor(bitmap, { width, height }, orientation) {
    this.#bitmap = bitmap;
    this.#orientation = orientation;
    [this.width, this.height] = this.#swapped(width, height);
  }

  /** Paints a part of the upright image, resized, over the whole of a canvas. */
  paint(canvas, x, y, width, height) {
    const orientation = this.#orientation;
    const context = canvas.getContext("2d");
    let [left, top] = [x, y];
    // The axes of the canvas, by those of the stored image.
    let [xx, yx, xy, yy] = orientation < SWAPPED_FROM ? [1, 0, 0, 1] : [0, 1, 1, 0];
    let [atX, atY] = [0, 0];
    if (MIRRORED_COLUMNS.includes(orientation)) {
      left = this.width - x - width;
      [xx, xy, atX] = [-xx, -xy, canvas.width];
    }
    if (MIRRORED_ROWS.includes(orientation)) {
      top = this.height - y - height;
      [yx, yy, atY] = [-yx, -yy, canvas.height];
    }
    context.save();
    context.setTransform(xx, yx, xy, yy, atX, atY);
    context.imageSmoothingQuality = "high";
    context.drawImage(
      this.#bitmap,
      ...this.#swapped(left, top),
      ...this.#swapped(width, height),
      0,
      0,
      ...this.#swapped(canvas.width, canvas.height),
    );
    context.restore();
  }

  /** A pair of the upright image as one of the stored image, and back. */
  #swapped(ofX, ofY) {
    return this.#orientation < SWAPPED_FROM ? [ofX, ofY] : [ofY, ofX];
  }
}
