// The page: an image in, its heads, their probabilities and heat maps out.

import {
  neighbours,
  resultLine,
  squareCrops,
  verdict,
  withoutOrientation,
} from "./heads.js";
import { Problem, Server } from "./server.js";

// Of the copy that is shown; the graph gets the file.
const MOST_SHOWN = 1600;
const CROP_SHOWN = 192;
// Of the known images that are like a head; the others are folded away.
const MOST_NEIGHBOURS = 3;
// Of a heat map: as in the copies of `dfdetect detect --explain`.
const MOST_COVERED = 0.6;
// Two decoders, of the browser and of the graph, differ by a grey level here and there.
const SAME = 0.02;
// Pixels as they are stored, like the graph's: no colour profile, no alpha.
const AS_STORED = { colorSpaceConversion: "none", premultiplyAlpha: "none" };

const server = new Server();
const at = (id) => document.getElementById(id);

let information = null;
let file = null;
let running = new AbortController();

// What the person does.

for (const id of ["file", "camera"]) {
  at(id).addEventListener("change", ({ target }) => {
    if (target.files.length) take(target.files);
    target.value = ""; // The same file may be chosen again.
  });
}
at("again").addEventListener("click", start);
at("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  server.token = at("token").value.trim();
  at("token").value = "";
  start();
});
at("heat-shown").addEventListener("change", showHeat);

document.addEventListener("dragover", (event) => {
  event.preventDefault();
  at("drop").classList.add("over");
});
for (const name of ["dragleave", "drop"]) {
  document.addEventListener(name, () => at("drop").classList.remove("over"));
}
document.addEventListener("drop", (event) => {
  event.preventDefault();
  take(event.dataTransfer.files);
});
document.addEventListener("paste", (event) => {
  if (event.clipboardData.files.length) take(event.clipboardData.files);
});

start();

function take(files) {
  if (!files.length) return told(new Problem("file", "That is no file."));
  file = files[0];
  start();
}

// What becomes of it.

/** Looks at the image, if there is one, as soon as the server tells its model. */
async function start() {
  running.abort();
  running = new AbortController();
  const { signal } = running;
  const focused = document.activeElement;
  told("");
  busy(file ? `Looking at ${file.name} …` : "");
  at("result").hidden = true;
  try {
    information ??= await server.information();
    at("token-form").hidden = true;
    at("model").textContent = modelLine();
    if (file) await look(file, signal);
    // Where the form was, or the button, there is nothing now.
    if (!focused.getClientRects().length) (file ? at("verdict") : at("file")).focus();
  } catch (error) {
    if (signal.aborted) return;
    busy("");
    told(error);
  }
}

async function look(image, signal) {
  if (!image.size) throw new Problem("file", "The file is empty.");
  const bitmap = await decoded(image);
  const outputs = await predicted("serving_default", image, signal);
  if (signal.aborted) return;
  const line = resultLine(image.name, outputs, bitmap, information);
  if (line.status === "unreadable") {
    throw new Problem(
      "file",
      `${image.name} is no image that the server can read: it takes JPEG, PNG, WebP ` +
        "(not animated), GIF and BMP.",
    );
  }
  if (line.status === "too_large") {
    const most = Math.floor(information.max_pixels / 1e6);
    throw new Problem("file", `The image has more than ${most} megapixels.`);
  }
  const found = show(line, outputs, bitmap);
  busy(summary(line));
  if (information.neighbours) await lookUp(found, line, image, signal);
  if (information.explains && bitmap) await explain(found, bitmap, signal);
}

/** The outputs of a signature, with the model asked for anew where it was replaced. */
async function predicted(signature, image, signal) {
  try {
    return await server.predict(information, signature, image, signal);
  } catch (error) {
    if (error.kind !== "gone") throw error;
    information = await server.information();
    at("model").textContent = modelLine();
    return server.predict(information, signature, image, signal);
  }
}

/** The pixels, upright; null where this browser cannot show the file. */
async function decoded(image) {
  let bytes;
  try {
    bytes = new Uint8Array(await image.arrayBuffer());
  } catch {
    throw new Problem("file", "The file cannot be read. Was it moved or deleted?");
  }
  try {
    const blob = new Blob([withoutOrientation(bytes)], { type: image.type });
    return await createImageBitmap(blob, AS_STORED);
  } catch {
    return null;
  }
}

// What is shown.

function show(line, outputs, bitmap) {
  const heads = line.heads.map((head, i) => {
    // The graph's own number, not the rounded one of the line.
    const probability = outputs.fake_probabilities[i];
    const judged = verdict(probability, information.thresholds) ?? "unknown";
    return { ...head, exact: outputs.boxes[i], probability, verdict: judged };
  });
  if (bitmap) {
    const boxes = heads.map((head) => head.exact);
    const { crop_margin } = information;
    squareCrops(boxes, bitmap.height, bitmap.width, crop_margin).forEach(
      (square, i) => (heads[i].square = square),
    );
  }
  at("verdict").replaceChildren("Verdict: ", tag(line.verdict ?? "none"));
  const hidden = bitmap ? "" : " This browser cannot show the image.";
  at("reason").textContent = reason(line) + hidden;
  at("stage").hidden = !bitmap;
  at("heat").hidden = !(
    information.explains && bitmap && heads.some((head) => head.probability !== null)
  );
  at("json").textContent = JSON.stringify(line, null, 1);
  at("marks").replaceChildren();
  at("heads").replaceChildren(...heads.map((head, i) => card(head, i)));
  at("result").hidden = false;
  if (bitmap) draw(heads, bitmap, line);
  showHeat();
  return heads;
}

function draw(heads, bitmap, line) {
  const { width, height } = bitmap;
  const shrink = Math.min(1, MOST_SHOWN / Math.max(width, height));
  const canvas = at("image");
  canvas.width = Math.max(1, Math.round(width * shrink));
  canvas.height = Math.max(1, Math.round(height * shrink));
  canvas.setAttribute("aria-label", `${line.path}, ${counted(heads.length)} marked`);
  painted(canvas, bitmap, 0, 0, width, height);
  at("marks").classList.toggle("many", heads.length > 8);
  // The most suspicious last, so that it is never covered.
  const order = heads.map((_, i) => i);
  order.sort((a, b) => (heads[a].probability ?? -1) - (heads[b].probability ?? -1));
  for (const i of order) {
    const [top, left, bottom, right] = heads[i].box;
    const mark = made("div", `box ${heads[i].verdict}`);
    place(mark, left, top, right - left, bottom - top);
    mark.classList.toggle("at-top", top < 0.06);
    mark.classList.toggle("at-right", left > 0.85);
    const short = heads.length > 8 ? `${i + 1}` : `${i + 1}: ${whole(heads[i])}`;
    mark.append(made("span", "", short));
    mark.addEventListener("click", () => {
      heads[i].card.scrollIntoView({ block: "nearest" });
      light(heads, i);
    });
    heads[i].mark = mark;
    at("marks").append(mark);

    const { y, x, side } = heads[i].square;
    const cropped = heads[i].card.querySelector("canvas");
    cropped.width = cropped.height = Math.min(side, CROP_SHOWN);
    painted(cropped, bitmap, x, y, side, side);
    heads[i].card.addEventListener("pointerenter", () => light(heads, i));
  }
}

function card(head, i) {
  const item = made("li");
  head.card = item;
  if (head.square) {
    const crop = made("div", "crop");
    crop.setAttribute("aria-hidden", "true");
    crop.append(made("canvas"));
    item.append(crop);
  }
  const facts = made("div", "facts");
  const title = made("h3", "", `Head ${i + 1} `);
  title.append(tag(head.verdict === "unknown" ? "not judged" : head.verdict));
  facts.append(title);
  if (head.probability === null) {
    const least = information.min_head_size;
    facts.append(made("p", "", `Too small to be judged: below ${least} pixels.`));
  } else {
    facts.append(scale(head.probability));
    facts.append(made("p", "", `${percent(head.probability)} fake`));
  }
  facts.append(made("p", "note", `Detector’s score: ${percent(head.score)}`));
  head.note = made("p", "note");
  facts.append(head.note);
  item.append(facts);
  return item;
}

/** Tells in each card, and in the JSON, what is known that is like the head. */
async function lookUp(heads, line, image, signal) {
  const judged = heads.filter((head) => head.probability !== null);
  if (!judged.length) return;
  for (const head of judged) {
    head.known = made("div", "known");
    head.known.append(made("p", "note", "Known images like it …"));
    head.card.append(head.known);
  }
  try {
    const outputs = await predicted("neighbours", image, signal);
    if (signal.aborted) return;
    if (outputs.num_heads !== heads.length) {
      throw new Problem("again", "the server finds other heads now.");
    }
    heads.forEach((head, i) => {
      const found = neighbours(outputs, i, information);
      line.heads[i].neighbours = found;
      if (head.known) head.known.replaceChildren(...knownImages(found, i));
    });
    at("json").textContent = JSON.stringify(line, null, 1);
  } catch (error) {
    if (signal.aborted) return;
    for (const head of judged) {
      const text = `No known images: ${error.message}`;
      head.known.replaceChildren(made("p", "note", text));
    }
    // Heat maps may be had all the same.
    if (!(error instanceof Problem)) console.error(error);
  }
}

function knownImages(found, i) {
  if (!found.length) return [made("p", "note", "No known image is like it.")];
  const parts = [made("h4", "", "Known images most like it")];
  const list = (some, start, name) => {
    const items = made("ol");
    items.start = start;
    items.setAttribute("aria-label", name);
    items.append(...some.map(knownImage));
    return items;
  };
  const name = `Known images most like head ${i + 1}`;
  parts.push(list(found.slice(0, MOST_NEIGHBOURS), 1, name));
  const others = found.slice(MOST_NEIGHBOURS);
  if (others.length) {
    const folded = made("details");
    const less = list(others, MOST_NEIGHBOURS + 1, `${name}, the next ones`);
    folded.append(made("summary", "", `${others.length} more`), less);
    parts.push(folded);
  }
  return parts;
}

function knownImage({ id, similarity, label }) {
  const item = made("li");
  // No minus before a zero.
  const number = (Math.round(100 * similarity) / 100 || 0).toFixed(2);
  const words = `, similarity\u00a0${number}`;
  item.append(tag(label ?? "unknown"), " ", made("span", "id", id), words);
  return item;
}

function scale(probability) {
  const { real_below, fake_from } = information.thresholds;
  const bar = made("div", "scale");
  bar.setAttribute("aria-hidden", "true");
  const real = made("i", "real");
  real.style.width = `${100 * real_below}%`;
  const uncertain = made("i", "uncertain");
  uncertain.style.width = `${100 * (fake_from - real_below)}%`;
  const pointer = made("b");
  pointer.style.left = `${100 * probability}%`;
  bar.append(real, uncertain, made("i", "fake"), pointer);
  return bar;
}

function light(heads, chosen) {
  heads.forEach((head, i) => {
    head.card.classList.toggle("lit", i === chosen);
    head.mark?.classList.toggle("lit", i === chosen);
  });
}

/** Lays the heat map of each head over its square, the most suspicious head first. */
async function explain(heads, bitmap, signal) {
  const judged = heads.filter((head) => head.probability !== null);
  judged.sort((a, b) => b.probability - a.probability);
  for (const head of judged) {
    const { y, x, side } = head.square;
    head.note.textContent = "Heat map …";
    try {
      const crop = made("canvas");
      crop.width = crop.height = side;
      painted(crop, bitmap, x, y, side, side);
      // Without loss, so that the classifier sees what it saw.
      const png = await new Promise((resolve) => crop.toBlob(resolve, "image/png"));
      if (!png) throw new Problem("file", "this browser cannot cut out the head.");
      const found = await predicted("explain", png, signal);
      if (signal.aborted) return;
      const map = heat(found.heat_map);
      head.card.querySelector(".crop").append(map);
      const over = heat(found.heat_map);
      over.className = "map";
      place(over, x / bitmap.width, y / bitmap.height, side / bitmap.width, side / bitmap.height);
      at("marks").prepend(over);
      head.note.textContent = explained(head, found);
    } catch (error) {
      if (signal.aborted) return;
      head.note.textContent = `No heat map: ${error.message}`;
      if (error.kind === "token" || error.kind === "again") return;
    }
  }
}

function explained(head, found) {
  const others = found.fake_probability;
  if (others !== null && Math.abs(others - head.probability) <= SAME) {
    return found.heat_map.some((row) => row.some((value) => value > 0))
      ? ""
      : "Heat map: nothing here speaks for a fake.";
  }
  return (
    "The heat map is of the crop as this browser decodes it, which the classifier " +
    `finds ${percent(others ?? 0)} fake.`
  );
}

/** A canvas of a map in [0, 1]: from blue to red, and the more covering, the higher. */
function heat(map) {
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
    pixels.data[4 * i + 3] = 255 * MOST_COVERED * value;
  });
  context.putImageData(pixels, 0, 0);
  return canvas;
}

function showHeat() {
  at("result").classList.toggle("no-heat", !at("heat-shown").checked);
}

// Words.

function modelLine() {
  const { model, version } = information;
  return `Model ${model}, version ${version}.`;
}

function bands() {
  const { real_below, fake_from } = information.thresholds;
  return real_below < fake_from
    ? `Real below ${percent(real_below)}, fake from ${percent(fake_from)}, uncertain between.`
    : `Fake from ${percent(fake_from)}, else real.`;
}

function summary(line) {
  if (!line.heads.length) return "No head was found.";
  return line.verdict
    ? `${counted(line.heads.length)} found. Verdict: ${line.verdict}.`
    : `${counted(line.heads.length)} found, too small to be judged.`;
}

function reason(line) {
  if (line.status === "no_head") {
    return "No head was found, so there is nothing to judge.";
  }
  if (line.status === "head_too_small") {
    const least = information.min_head_size;
    return `All heads are too small to be judged: below ${least} pixels.`;
  }
  const whose = line.heads.length > 1 ? "Its most suspicious head" : "Its head";
  return `${whose} is a deepfake with a probability of ${percent(
    line.fake_probability,
  )}. ${bands()}`;
}

function told(error) {
  at("problem").firstElementChild.textContent = error ? error.message : "";
  at("again").hidden = !(error && ["again", "gone"].includes(error.kind));
  if (error?.kind === "token") {
    at("token-form").hidden = false;
    at("token").focus();
  }
  // A fault of the page itself is for the console.
  if (error && !(error instanceof Problem)) console.error(error);
}

function busy(text) {
  at("status").textContent = text;
  at("status").classList.toggle("busy", text.endsWith("…"));
}

function counted(number) {
  return `${number} ${number === 1 ? "head" : "heads"}`;
}

function percent(number) {
  if (number > 0 && number < 0.001) return "less than 0.1 %";
  if (number < 1 && number > 0.999) return "more than 99.9 %";
  return `${(100 * number).toFixed(1)} %`;
}

function whole(head) {
  return head.probability === null ? "?" : `${Math.round(100 * head.probability)} %`;
}

// Small parts.

function made(name, classes = "", text = "") {
  const element = document.createElement(name);
  if (classes) element.className = classes;
  element.textContent = text;
  return element;
}

function tag(word) {
  const known = ["real", "uncertain", "fake"].includes(word);
  return made("span", `tag ${known ? word : "unknown"}`, word);
}

function place(element, left, top, width, height) {
  const shares = { left, top, width, height };
  for (const [name, share] of Object.entries(shares)) {
    element.style[name] = `${100 * share}%`;
  }
}

function painted(canvas, bitmap, x, y, width, height) {
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, x, y, width, height, 0, 0, canvas.width, canvas.height);
}
