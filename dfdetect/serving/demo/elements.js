// Small parts of the page. Nothing here knows what they are for.

// Opacity of a heat map, as in the copies of `dfdetect detect --explain`.
const HEAT_OPACITY = 0.6;

export const at = (id) => document.getElementById(id);

export function made(name, classes = "", text = "") {
  const element = document.createElement(name);
  if (classes) element.className = classes;
  element.textContent = text;
  return element;
}

export function tag(word) {
  const known = ["real", "uncertain", "fake"].includes(word);
  return made("span", `tag ${known ? word : "unknown"}`, word);
}

/** Places an element by shares of its parent's width and height. */
export function place(element, left, top, width, height) {
  const shares = { left, top, width, height };
  for (const [name, share] of Object.entries(shares)) {
    element.style[name] = `${100 * share}%`;
  }
}

/** A canvas of a map in [0, 1]: from blue to red, and the more opaque, the higher. */
export function heatCanvas(map) {
  const canvas = made("canvas", "map");
  canvas.width = canvas.height = map.length;
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(map.length, map.length);
  map.flat().forEach((value, i) => {
    const band = 4 * value;
    // Blue, cyan, green, yellow, red.
    const ramp = (middle) => Math.min(Math.max(2 - Math.abs(band - middle), 0), 1);
    pixels.data[4 * i] = 255 * ramp(4);
    pixels.data[4 * i + 1] = 255 * ramp(2);
    pixels.data[4 * i + 2] = 255 * ramp(0);
    pixels.data[4 * i + 3] = 255 * HEAT_OPACITY * value;
  });
  context.putImageData(pixels, 0, 0);
  return canvas;
}
