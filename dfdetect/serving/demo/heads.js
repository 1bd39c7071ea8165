// What the graph's numbers mean. Nothing here knows of the page.

/** The verdict on a fake probability: see dfdetect/metrics/calibration.py. */
export function verdict(probability, thresholds) {
  if (probability === null) return null;
  // The graph's float32, not its decimal digits, is compared.
  const exact = Math.fround(probability);
  if (exact >= thresholds.fake_from) return "fake";
  return exact < thresholds.real_below ? "real" : "uncertain";
}

// A detector that scores a head below it is not sure that it is one.
const SURE_SCORE = 0.5;

/**
 * The heads of an image, most suspicious first, those that were not judged last.
 *
 * `line` is what `resultLine` gives. Each head is that of the line, with its `rank` from
 * 1 on, its `index` in the line, the graph's own `exact` box and `probability`, its
 * `verdict`, whether its probability is the image's (`isDeciding`), and whether the
 * detector is not sure of it (`isWeak`; never the deciding one, and never all).
 */
export function rankedHeads(line, outputs, thresholds) {
  const heads = line.heads.map((head, index) => {
    // The graph's own numbers, not the rounded ones of the line.
    const probability = outputs.fake_probabilities[index];
    const judged = verdict(probability, thresholds) ?? "unknown";
    const exact = outputs.boxes[index];
    const isWeak = head.score !== null && head.score < SURE_SCORE;
    return { ...head, index, exact, probability, verdict: judged, isWeak };
  });
  heads.sort((a, b) => (b.probability ?? -1) - (a.probability ?? -1));
  const allWeak = heads.every((head) => head.isWeak && head.probability === null);
  heads.forEach((head, i) => {
    head.rank = i + 1;
    head.isDeciding = i === 0 && head.probability !== null;
    head.isWeak &&= !head.isDeciding && !allWeak;
  });
  return heads;
}

/**
 * The squares of pixels that were cut around boxes: `square_crops` of dfdetect/boxes.py,
 * in float32 and integers as there.
 *
 * `boxes` are [ymin, xmin, ymax, xmax] in [0, 1], `margin` is [numerator, denominator].
 * Gives {y, x, side} for each.
 */
export function squareCrops(boxes, height, width, margin) {
  const half = (number) => Math.floor(number / 2);
  const clip = (number, most) => Math.min(Math.max(number, 0), most);
  return boxes.map((box) => {
    const [y1, x1, y2, x2] = box.map((edge, i) =>
      roundedToEven(Math.fround(Math.fround(edge) * (i % 2 ? width : height))),
    );
    let side = Math.floor((Math.max(y2 - y1, x2 - x1) * margin[0]) / margin[1]);
    const y = clip(half(y1 + y2) - half(side), height - 1);
    const x = clip(half(x1 + x2) - half(side), width - 1);
    side = Math.max(Math.min(side, height - y, width - x), 1);
    return { y, x, side };
  });
}

function roundedToEven(number) {
  const below = Math.floor(number);
  const rest = number - below;
  if (rest !== 0.5) return Math.round(number);
  return below % 2 ? below + 1 : below;
}

/** The line that `dfdetect detect` prints for an image. */
export function resultLine(name, outputs, size, information) {
  const status = information.statuses[outputs.status];
  const known = size !== null && status !== "unreadable";
  const heads = [];
  for (let i = 0; i < outputs.num_heads; i++) {
    heads.push({
      box: outputs.boxes[i].map(sixDigits),
      score: sixDigits(outputs.head_scores[i]),
      fake_probability: sixDigits(outputs.fake_probabilities[i]),
    });
  }
  return {
    path: name,
    kind: "image",
    status,
    width: known ? size.width : null,
    height: known ? size.height : null,
    heads,
    fake_probability: sixDigits(outputs.fake_probability),
    verdict: verdict(outputs.fake_probability, information.thresholds),
  };
}

/**
 * The known images that head `i` of `neighbours` is most like, nearest first, as
 * `dfdetect search` prints them; a label of null is one that nobody knows.
 */
export function neighbours(outputs, i, information) {
  const found = [];
  outputs.neighbour_similarities[i].forEach((similarity, k) => {
    if (similarity === null) return; // There is none.
    found.push({
      id: outputs.neighbour_ids[i][k],
      similarity: Number(similarity.toFixed(4)),
      label: information.labels[outputs.neighbour_labels[i][k]] ?? null,
    });
  });
  return found;
}

function sixDigits(number) {
  return number === null ? null : Number(number.toFixed(6));
}

/**
 * An answer of the server. It writes NaN, which is not JSON, for what there is not;
 * strings, which may hold one, stay as they are.
 */
export function parse(text) {
  const strings = /"(?:[^"\\]|\\.)*"|-?\b(?:NaN|Infinity)\b/g;
  return JSON.parse(text.replace(strings, (x) => (x.startsWith('"') ? x : "null")));
}
