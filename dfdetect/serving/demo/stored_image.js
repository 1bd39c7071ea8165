// What the page reads of image files itself: dfdetect/media/headers.py, in JavaScript.
// The graph turns images by its own reading of their EXIF, which differs from that of
// browsers and from one browser to the next. Nothing here knows of the page.

const EXIF_ORIENTATION = 0x0112;
// EXIF types SHORT and LONG, unsigned and signed.
const TYPES_OF_TWO_BYTES = [3, 8];
const TYPES_OF_FOUR_BYTES = [4, 9];
const EXIF_PREFIX = "Exif\0\0";

// The graph's own bounds.
const MAX_JPEG_SEGMENTS = 2000;
const MAX_PNG_CHUNKS = 2000;
const MAX_PNG_EXIF = 16;
const PNG_TAIL_BYTES = 2 ** 18;
const MAX_WEBP_CHUNKS = 10_000;

const WEBP_HAS_EXIF = 0x08;
const APP1 = 0xe1;
const APP15 = 0xef;

/** How an image file is to be turned, 1 to 8 as in EXIF: as the graph does. */
export function readOrientation(bytes) {
  const file = new Reader(bytes);
  switch (kindOf(file)) {
    case "jpeg":
      return jpegOrientation(file);
    case "png":
      return pngOrientation(file);
    case "webp":
      return webpOrientation(file);
    default:
      return 1;
  }
}

/** The parts of the file without anything by which a browser would turn the image. */
export function withoutOrientation(bytes) {
  const file = new Reader(bytes);
  switch (kindOf(file)) {
    case "jpeg": {
      const changed = bytes.slice();
      // EXIF and XMP become application data that nobody reads.
      for (const { at, marker } of jpegSegments(file)) {
        if (marker === APP1) changed[at + 1] = APP15;
      }
      return [changed];
    }
    case "png": {
      const parts = [];
      let start = 0;
      for (const { at, name, end } of pngChunks(file)) {
        if (name !== "eXIf") continue;
        parts.push(bytes.subarray(start, at));
        start = end;
      }
      return [...parts, bytes.subarray(start)];
    }
    case "webp": {
      const changed = bytes.slice();
      // A chunk of an unknown name is passed over.
      for (const { at, name } of webpChunks(file)) {
        if (name === "EXIF") changed.set([0x4a, 0x55, 0x4e, 0x4b], at);
      }
      return [changed];
    }
    default:
      return [bytes];
  }
}

/**
 * The stored {width, height} that the graph takes from a GIF: those of its first frame,
 * from the upper left corner on; null for other files, which have one size alone.
 */
export function readFrameSize(bytes) {
  const file = new Reader(bytes);
  if (file.letters(0, 4) !== "GIF8") return null;
  const colors = (flags) => (flags & 0x80 ? 3 * 2 ** ((flags & 7) + 1) : 0);
  let at = 13 + colors(file.uint(10, 1));
  // Extensions, each a chain of blocks with their lengths.
  while (file.uint(at, 1) === 0x21) {
    at += 2;
    for (let length; (length = file.uint(at, 1)) > 0; ) at += 1 + length;
    at += 1;
  }
  if (file.uint(at, 1) !== 0x2c) return null;
  return { width: file.uint(at + 5, 2, true), height: file.uint(at + 7, 2, true) };
}

/** Numbers and letters of a file; beyond its end there are zeros. */
class Reader {
  #bytes;

  constructor(bytes) {
    this.#bytes = bytes;
  }

  get length() {
    return this.#bytes.length;
  }

  uint(at, count, isLittle = false) {
    let value = 0;
    for (let i = 0; i < count; i++) {
      value = 256 * value + (this.#bytes[isLittle ? at + count - 1 - i : at + i] ?? 0);
    }
    return value;
  }

  letters(at, count) {
    return String.fromCharCode(...this.#bytes.subarray(at, at + count));
  }

  /** The offset of a name from `at` on, or -1. */
  find(name, at) {
    const codes = [...name].map((letter) => letter.charCodeAt(0));
    for (; (at = this.#bytes.indexOf(codes[0], at)) >= 0; at++) {
      if (codes.every((code, i) => this.#bytes[at + i] === code)) return at;
    }
    return -1;
  }
}

function kindOf(file) {
  if (file.uint(0, 3) === 0xffd8ff) return "jpeg";
  if (file.letters(0, 8) === "\x89PNG\r\n\x1a\n") return "png";
  if (file.letters(0, 4) === "RIFF" && file.letters(8, 4) === "WEBP") return "webp";
  return "";
}

/** The orientation in the TIFF structure at an offset. */
function tiffOrientation(file, tiff) {
  const isLittle = file.letters(tiff, 2) === "II";
  const directory = tiff + file.uint(tiff + 4, 4, isLittle);
  const count = file.uint(directory, 2, isLittle);
  for (let i = 0; i < count; i++) {
    const at = directory + 2 + 12 * i;
    if (file.uint(at, 2, isLittle) !== EXIF_ORIENTATION) continue;
    const type = file.uint(at + 2, 2, isLittle);
    const isLong = TYPES_OF_FOUR_BYTES.includes(type);
    if (!isLong && !TYPES_OF_TWO_BYTES.includes(type)) continue;
    if (file.uint(at + 4, 4, isLittle) !== 1) continue;
    const value = file.uint(at + 8, isLong ? 4 : 2, isLittle);
    if (value >= 1 && value <= 8) return value;
  }
  return 1;
}

/** The same where the structure may have the prefix that it has in a JPEG. */
function prefixedOrientation(file, at) {
  const hasPrefix = file.letters(at, 6) === EXIF_PREFIX;
  return tiffOrientation(file, hasPrefix ? at + 6 : at);
}

/** The segments up to the first scan. */
function* jpegSegments(file) {
  for (let at = 2, i = 0; at < file.length && i < MAX_JPEG_SEGMENTS; i++) {
    const marker = file.uint(at + 1, 1);
    // Fill bytes, and others that are not a marker.
    if (file.uint(at, 1) !== 0xff || marker === 0xff) {
      at += 1;
      continue;
    }
    yield { at, marker };
    if (marker >= 0xd8 && marker <= 0xda) return;
    if (marker <= 0x01 || (marker >= 0xd0 && marker <= 0xd7)) {
      at += 2;
      continue;
    }
    const length = file.uint(at + 2, 2);
    if (length < 2) return;
    at += 2 + length;
  }
}

function jpegOrientation(file) {
  for (const { at, marker } of jpegSegments(file)) {
    if (marker === APP1 && file.letters(at + 4, 6) === EXIF_PREFIX) {
      return tiffOrientation(file, at + 10);
    }
  }
  return 1;
}

function* pngChunks(file) {
  for (let at = 8; at < file.length; ) {
    const end = at + 12 + file.uint(at, 4);
    yield { at, name: file.letters(at + 4, 4), end };
    at = end;
  }
}

function pngOrientation(file) {
  let i = 0;
  for (const { at, name } of pngChunks(file)) {
    if (name === "IDAT" || i++ >= MAX_PNG_CHUNKS) break;
    if (name === "eXIf") return prefixedOrientation(file, at + 8);
  }
  // Behind the pixels the graph looks for the name alone, and for a TIFF mark after it.
  let at = Math.max(file.length - PNG_TAIL_BYTES, 0);
  for (i = 0; i < MAX_PNG_EXIF && (at = file.find("eXIf", at)) >= 0; i++) {
    at += 4;
    const mark = file.letters(file.letters(at, 6) === EXIF_PREFIX ? at + 6 : at, 4);
    if (mark === "II*\0" || mark === "MM\0*") return prefixedOrientation(file, at);
  }
  return 1;
}

function* webpChunks(file) {
  for (let at = 12; at < file.length; ) {
    yield { at, name: file.letters(at, 4) };
    const length = file.uint(at + 4, 4, true);
    at += 8 + length + (length % 2);
  }
}

function webpOrientation(file) {
  const isExtended = file.letters(12, 4) === "VP8X";
  if (!isExtended || !(file.uint(20, 1) & WEBP_HAS_EXIF)) return 1;
  let i = 0;
  for (const { at, name } of webpChunks(file)) {
    if (i++ >= MAX_WEBP_CHUNKS) break;
    if (name === "EXIF") return prefixedOrientation(file, at + 8);
  }
  return 1;
}
