// Shows a result: the verdict, the marked image, and a card for each head.

import { at, heatCanvas, made, place, tag } from "./elements.js";
import { neighbours, rankedHeads, squareCrops } from "./heads.js";
import { boxLabel, counted, percent, reason } from "./words.js";

// Longest side of the copy that is shown; the graph gets the file.
const MAX_SHOWN = 1600;
const CROP_SHOWN = 192;
// Above so many heads, labels are short.
export const MANY_HEADS = 8;
// Number of known images that are shown for a head; the others are folded.
const NEIGHBOURS_SHOWN = 3;

/**
 * Shows the result of an image.
 *
 * `line` and `outputs` are what `resultLine` returned and took, `pixels` is an
 * `UprightImage` or null. Returns the heads as `rankedHeads` does, most suspicious
 * first; each also has its `card`, `note` and, where there are pixels, `square` and
 * `mark`.
 */
export function show(line, outputs, pixels, information) {
  const heads = rankedHeads(line, outputs, information.thresholds);
  if (pixels) {
    const boxes = heads.map((head) => head.exact);
    const { crop_margin } = information;
    squareCrops(boxes, pixels.height, pixels.width, crop_margin).forEach(
      (square, i) => (heads[i].square = square),
    );
  }
  at("verdict").replaceChildren("Verdict: ", tag(line.verdict ?? "none"));
  const hidden = pixels ? "" : " This browser cannot show the image.";
  at("reason").textContent = reason(line, information) + hidden;
  at("stage").hidden = at("keep-image").hidden = !pixels;
  at("heat").hidden = !(
    information.explains && pixels && heads.some((head) => head.probability !== null)
  );
  showJson(line);
  at("marks").replaceChildren();
  for (const head of heads) head.card = card(head, heads.length, information);
  const strong = heads.filter((head) => !head.isWeak);
  const weak = heads.filter((head) => head.isWeak);
  at("heads").replaceChildren(...strong.map((head) => head.card));
  at("weak-heads").replaceChildren(...weak.map((head) => head.card));
  at("weak").hidden = !weak.length;
  at("weak").open = false;
  at("weak-count").textContent =
    `${counted(weak.length)} more, of which the detector is not sure: score below 50 %`;
  at("result").hidden = false;
  if (pixels) draw(heads, pixels, line);
  showHeat();
  showWeak();
  return heads;
}

/** Shows what is copied and saved. */
export function showJson(line) {
  at("json").textContent = JSON.stringify(line, null, 1);
}

/** Shows or hides the heat maps over the image. */
export function showHeat() {
  at("result").classList.toggle("no-heat", !at("heat-shown").checked);
}

/** Shows the boxes of the heads that are folded while they are unfolded. */
export function showWeak() {
  at("result").classList.toggle("no-weak", !at("weak").open);
}

/** Shows the known images that a head is most like, of `neighbours`. */
export function showNeighbours(heads, outputs, line, information) {
  for (const head of heads) {
    const found = neighbours(outputs, head.index, information);
    line.heads[head.index].neighbours = found;
    if (head.known) head.known.replaceChildren(...knownImages(found, head.rank));
  }
  showJson(line);
}

/** Lays a heat map over the square that it is of, in the image and in the card. */
export function showHeatMap(head, map, pixels) {
  const { y, x, side } = head.square;
  const { width, height } = pixels;
  head.card.querySelector(".crop").append(heatCanvas(map));
  head.map = heatCanvas(map);
  head.map.classList.toggle("weak", head.isWeak);
  place(head.map, x / width, y / height, side / width, side / height);
  at("marks").prepend(head.map);
}

function draw(heads, pixels, line) {
  const { width, height } = pixels;
  const shrink = Math.min(1, MAX_SHOWN / Math.max(width, height));
  const canvas = at("image");
  canvas.width = Math.max(1, Math.round(width * shrink));
  canvas.height = Math.max(1, Math.round(height * shrink));
  canvas.setAttribute("aria-label", `${line.path}, ${counted(heads.length)} marked`);
  pixels.paint(canvas, 0, 0, width, height);
  const isShort = heads.length > MANY_HEADS;
  at("marks").classList.toggle("many", isShort);
  // The most suspicious last, so that no other covers it.
  for (const head of heads.toReversed()) {
    const [top, left, bottom, right] = head.box;
    const mark = made("div", `box ${head.verdict}`);
    place(mark, left, top, right - left, bottom - top);
    mark.classList.toggle("at-top", top < 0.06);
    mark.classList.toggle("at-right", left > 0.85);
    mark.classList.toggle("weak", head.isWeak);
    mark.classList.toggle("deciding", head.isDeciding);
    mark.append(made("span", "", boxLabel(head.rank, head.probability, isShort)));
    mark.addEventListener("click", () => {
      head.card.scrollIntoView({ block: "nearest" });
      light(heads, head);
    });
    head.mark = mark;
    at("marks").append(mark);

    const { y, x, side } = head.square;
    const cropped = head.card.querySelector("canvas");
    cropped.width = cropped.height = Math.min(side, CROP_SHOWN);
    pixels.paint(cropped, x, y, side, side);
    head.card.addEventListener("pointerenter", () => light(heads, head));
  }
}

function card(head, count, information) {
  const item = made("li");
  if (head.square) {
    const crop = made("div", "crop");
    crop.setAttribute("aria-hidden", "true");
    crop.append(made("canvas"));
    item.append(crop);
  }
  const facts = made("div", "facts");
  const title = made("h3", "", `Head ${head.rank} `);
  if (head.probability === null) title.append(tag("not judged"));
  if (head.isDeciding && count > 1) {
    title.append(made("span", "deciding", "decides the verdict"));
  }
  facts.append(title);
  if (head.probability === null) {
    const least = information.min_head_size;
    facts.append(made("p", "", `Too small to be judged: below ${least} pixels.`));
  } else {
    facts.append(scale(head.probability, information.thresholds));
    facts.append(made("p", "", `${percent(head.probability)} fake`));
  }
  facts.append(made("p", "note", `Detector’s score: ${percent(head.score)}`));
  head.note = made("p", "note");
  facts.append(head.note);
  item.append(facts);
  return item;
}

function scale(probability, { real_below, fake_from }) {
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
  for (const head of heads) {
    head.card.classList.toggle("lit", head === chosen);
    head.mark?.classList.toggle("lit", head === chosen);
  }
}

function knownImages(found, rank) {
  if (!found.length) return [made("p", "note", "No known image is like it.")];
  const parts = [made("h4", "", "Known images most like it")];
  const list = (some, start, name) => {
    const items = made("ol");
    items.start = start;
    items.setAttribute("aria-label", name);
    items.append(...some.map(knownImage));
    return items;
  };
  const name = `Known images most like head ${rank}`;
  parts.push(list(found.slice(0, NEIGHBOURS_SHOWN), 1, name));
  const others = found.slice(NEIGHBOURS_SHOWN);
  if (others.length) {
    const folded = made("details");
    const less = list(others, NEIGHBOURS_SHOWN + 1, `${name}, the next ones`);
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
