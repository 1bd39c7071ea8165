// The sentences of the page.

export function modelLine({ model, version }) {
  return `Model ${model}, version ${version}.`;
}

/** Why the verdict is what it is. */
export function reason(line, information) {
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
  )}. ${bands(information.thresholds)}`;
}

/** What is announced to those who do not see the result. */
export function summary(line) {
  if (!line.heads.length) return "No head was found.";
  return line.verdict
    ? `${counted(line.heads.length)} found. Verdict: ${line.verdict}.`
    : `${counted(line.heads.length)} found, too small to be judged.`;
}

export function counted(number) {
  return `${number} ${number === 1 ? "head" : "heads"}`;
}

export function percent(number) {
  if (number > 0 && number < 0.001) return "less than 0.1 %";
  if (number < 1 && number > 0.999) return "more than 99.9 %";
  return `${(100 * number).toFixed(1)} %`;
}

/** The label of a head's box: its rank and, where there is room, its probability. */
export function boxLabel(rank, probability, isShort) {
  if (isShort) return `${rank}`;
  const whole = probability === null ? "?" : `${Math.round(100 * probability)} %`;
  return `${rank}: ${whole}`;
}

function bands({ real_below, fake_from }) {
  return real_below < fake_from
    ? `Real below ${percent(real_below)}, fake from ${percent(fake_from)}, uncertain between.`
    : `Fake from ${percent(fake_from)}, else real.`;
}
