// Talks to the server that the page came from.

import { parse } from "./heads.js";

/** What went wrong, in words for the person. `kind` says what may help. */
export class Problem extends Error {
  constructor(kind, message) {
    super(message);
    this.kind = kind;
  }
}

export class Server {
  // Kept here alone: it is gone with the page.
  #token = "";

  set token(token) {
    this.#token = token;
  }

  /** What the page must know of the model: see dfdetect/serving/demo_page.py. */
  async information() {
    return this.#ask("info.json");
  }

  /** A drawn image to try the model with, as a file. */
  async example() {
    const answer = await this.#fetch("example.jpg", {});
    if (!answer.ok) throw this.#problem(answer.status, said(await answer.text()));
    return new File([await answer.blob()], "example.jpg", { type: "image/jpeg" });
  }

  /**
   * The outputs of a signature for one encoded image; `inputs` are those that it takes
   * besides `image_bytes`, without their batch dimension.
   */
  async predict(information, signature, image, signal, inputs = {}) {
    const { model, version, max_request_bytes } = information;
    const others = JSON.stringify(inputs).slice(1, -1);
    const start = `{"signature_name":"${signature}","instances":[{${others}${
      others && ","
    }"image_bytes":{"b64":"`;
    const end = '"}}]}';
    const bytes = start.length + 4 * Math.ceil(image.size / 3) + end.length;
    if (bytes > max_request_bytes) {
      const most = Math.floor(((max_request_bytes - 100) * 3) / 4);
      throw new Problem(
        "size",
        `The file has ${megabytes(image.size)}; this server takes ${megabytes(most)} at most.`,
      );
    }
    const body = start + (await base64(image)) + end;
    const name = encodeURIComponent(model);
    const path = `../v1/models/${name}/versions/${version}:predict`;
    const answer = await this.#ask(path, body, signal);
    return answer.predictions[0];
  }

  async #ask(path, body, signal) {
    const headers = this.#token ? { Authorization: `Bearer ${this.#token}` } : {};
    const method = body === undefined ? "GET" : "POST";
    const answer = await this.#fetch(path, { method, body, headers, signal });
    const text = await this.#reached(answer.text(), signal);
    if (!answer.ok) throw this.#problem(answer.status, said(text));
    return parse(text);
  }

  async #fetch(path, settings) {
    const all = { ...settings, cache: "no-store", credentials: "omit" };
    return this.#reached(fetch(path, all), settings.signal);
  }

  /** What is promised, or that the server cannot be reached. */
  async #reached(promise, signal) {
    try {
      return await promise;
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new Problem("again", "The server cannot be reached.");
    }
  }

  #problem(status, message) {
    switch (status) {
      case 401:
        return new Problem(
          "token",
          this.#token
            ? "That is not this server’s token."
            : "This server asks for a token.",
        );
      case 404:
        return new Problem("gone", `The server has no such model: ${message}.`);
      case 413:
        return new Problem("size", `The file is too large: ${message}.`);
      case 429:
      case 503:
        return new Problem("again", "The server is busy. Try again in a moment.");
      case 504:
        return new Problem("again", "The server took too long. Try again in a moment.");
      default:
        return new Problem("again", `The server answered ${status}: ${message}.`);
    }
  }
}

function said(text) {
  try {
    return String(JSON.parse(text).error).replace(/\.$/, "");
  } catch {
    return "no reason given";
  }
}

function base64(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(new Problem("file", "The file cannot be read."));
    reader.readAsDataURL(blob);
  });
}

function megabytes(bytes) {
  return bytes < 1e5 ? `${Math.ceil(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}
