// The page: an image in, its heads, their probabilities and heat maps out.

import { at, made } from "./elements.js";
import { resultLine } from "./heads.js";
import { besides, canCopy, copy, markedImage, save } from "./keep.js";
import { show, showHeat, showHeatMap, showNeighbours, showWeak } from "./result.js";
import { Problem, Server } from "./server.js";
import { decodeUpright } from "./upright_image.js";
import { modelLine, summary } from "./words.js";

const server = new Server();

let information = null;
let file = null;
let running = new AbortController();
// What is shown, once it is: {heads, line, pixels}.
let shown = null;
// Asks for the heat maps of the heads that are folded, until it has.
let explainWeak = null;

// What the person does.

for (const id of ["file", "camera"]) {
  at(id).addEventListener("change", ({ target }) => {
    if (target.files.length) take(target.files);
    target.value = ""; // The same file may be chosen again.
  });
}
at("again").addEventListener("click", start);
at("example").addEventListener("click", takeExample);
at("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  server.token = at("token").value.trim();
  at("token").value = "";
  start();
});
at("heat-shown").addEventListener("change", showHeat);
at("weak").addEventListener("toggle", () => {
  showWeak();
  if (!at("weak").open) return;
  explainWeak?.();
  explainWeak = null;
});

at("copy-json").hidden = at("copy-image").hidden = !canCopy();
const json = () => new Blob([at("json").textContent + "\n"], { type: "text/plain" });
const image = () => markedImage(shown.pixels, shown.heads);
keep("copy-json", "Copied.", () => copy("text/plain", json()));
keep("copy-image", "Copied.", () => copy("image/png", image()));
keep("save-json", "Saved.", () => save(json(), besides(shown.line.path, ".json")));
keep("save-image", "Saved.", async () =>
  save(await image(), besides(shown.line.path, "_marked.png")),
);

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
  if (!files.length) return tell(new Problem("file", "That is not a file."));
  file = files[0];
  start();
}

async function takeExample() {
  try {
    take([await server.example()]);
  } catch (error) {
    tell(error);
  }
}

/** Does something with the result at a click, and says beside the button that it did. */
function keep(id, done, action) {
  at(id).addEventListener("click", async () => {
    const told = at(id).parentElement.querySelector("[role=status]");
    told.textContent = "";
    try {
      await action();
      told.textContent = done;
    } catch {
      told.textContent = "This browser does not let the page do so.";
    }
  });
}

// What becomes of it.

/** Looks at the image, if there is one, as soon as the server tells its model. */
async function start() {
  running.abort();
  running = new AbortController();
  const { signal } = running;
  const focused = document.activeElement;
  shown = explainWeak = null;
  tell("");
  setStatus(file ? `Looking at ${file.name} …` : "");
  at("result").hidden = true;
  try {
    if (!information) await askInformation();
    at("token-form").hidden = true;
    if (file) await look(file, signal);
    // Where the form was, or the button, there is nothing now.
    if (!focused.getClientRects().length) (file ? at("verdict") : at("file")).focus();
  } catch (error) {
    if (signal.aborted) return;
    setStatus("");
    tell(error);
  }
}

async function askInformation() {
  information = await server.information();
  at("model").textContent = modelLine(information);
}

async function look(image, signal) {
  if (!image.size) throw new Problem("file", "The file is empty.");
  const pixels = await decode(image);
  const outputs = await predict("serving_default", image, signal);
  if (signal.aborted) return;
  const line = resultLine(image.name, outputs, pixels, information);
  if (line.status === "unreadable") {
    throw new Problem(
      "file",
      `${image.name} is not an image that the server can read: it takes JPEG, PNG, WebP ` +
        "GIF and BMP.",
    );
  }
  if (line.status === "too_large") {
    const most = Math.floor(information.max_pixels / 1e6);
    throw new Problem("file", `The image has more than ${most} megapixels.`);
  }
  const heads = show(line, outputs, pixels, information);
  shown = { heads, line, pixels };
  for (const told of document.querySelectorAll("#result [role=status]")) {
    told.textContent = "";
  }
  setStatus(summary(line), true);
  if (information.neighbours) await lookUp(heads, line, image, signal);
  if (information.explains && pixels) {
    const explainSome = (isWeak) =>
      explain(heads.filter((head) => head.isWeak === isWeak), image, pixels, signal);
    if (at("weak").open) await explainSome(true);
    else explainWeak = () => explainSome(true);
    await explainSome(false);
  }
}

/** The outputs of a signature, with the model asked for again where it was replaced. */
async function predict(signature, image, signal, inputs = {}) {
  try {
    return await server.predict(information, signature, image, signal, inputs);
  } catch (error) {
    if (error.kind !== "gone") throw error;
    await askInformation();
    return server.predict(information, signature, image, signal, inputs);
  }
}

/** The pixels, upright; null where this browser cannot show the file. */
async function decode(image) {
  let bytes;
  try {
    bytes = new Uint8Array(await image.arrayBuffer());
  } catch {
    throw new Problem("file", "The file cannot be read. Was it moved or deleted?");
  }
  try {
    return await decodeUpright(bytes, image.type);
  } catch {
    return null;
  }
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
    const outputs = await predict("neighbours", image, signal);
    if (signal.aborted) return;
    if (outputs.num_heads !== heads.length) {
      throw new Problem("again", "the server finds other heads now.");
    }
    showNeighbours(heads, outputs, line, information);
  } catch (error) {
    if (signal.aborted) return;
    for (const head of judged) {
      const text = `No known images: ${error.message}`;
      head.known.replaceChildren(made("p", "note", text));
    }
    // Heat maps may be had nonetheless.
    if (!(error instanceof Problem)) console.error(error);
  }
}

/** Lays the heat map of each head over its square, the most suspicious head first. */
async function explain(heads, image, pixels, signal) {
  for (const head of heads.filter((head) => head.probability !== null)) {
    head.note.textContent = "Heat map …";
    try {
      // The graph cuts the head out of the file as it did to judge it.
      const inputs = { boxes: head.exact };
      const found = await predict("explain_heads", image, signal, inputs);
      if (signal.aborted) return;
      showHeatMap(head, found.heat_map, pixels);
      const isEmpty = !found.heat_map.flat().some((value) => value > 0);
      head.note.textContent = isEmpty ? "Heat map: nothing here speaks for a fake." : "";
    } catch (error) {
      if (signal.aborted) return;
      head.note.textContent = `No heat map: ${error.message}`;
      if (error.kind === "token" || error.kind === "again") return;
    }
  }
}

function tell(error) {
  at("problem").firstElementChild.textContent = error ? error.message : "";
  at("again").hidden = !(error && ["again", "gone"].includes(error.kind));
  if (error?.kind === "token") {
    at("token-form").hidden = false;
    at("token").focus();
  }
  // A fault of the page itself is for the console.
  if (error && !(error instanceof Problem)) console.error(error);
}

/** Says what goes on; `isShown` where the page itself shows it, for screen readers. */
function setStatus(text, isShown = false) {
  at("status").textContent = text;
  at("status").classList.toggle("busy", text.endsWith("…"));
  at("status").classList.toggle("spoken", isShown);
}
