// The model behind a worker, as a promise: what window.gensdk.sample() is made of.

import { Prompts } from "./prompts.js";

const MAX_WORD = (1n << 64n) - 1n;

export class Sampler {
  #worker;
  #waiting = new Map();
  #count = 0;
  #prompts = null;

  constructor() {
    // Through a blob the worker is bound by this page's content security policy; from its own address it would not be.
    const code = `import ${JSON.stringify(new URL("worker.js", import.meta.url).href)};`;
    const address = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
    this.#worker = new Worker(address, { type: "module" });
    this.page = new Promise((resolve, reject) => {
      this.#worker.onmessage = ({ data }) => {
        if (data.page) resolve(data.page);
        else if (data.id === undefined) reject(new Error(data.error));
        else this.#answer(data);
      };
      this.#worker.onerror = (event) => reject(new Error(event.message || "a file of the page is missing or broken"));
    });
  }

  // Samples 0 .. count - 1 of a seed, as Generator.sample() makes them: {data: Float32Array, shape: [count, C, H, W],
  // labels: a number each, or null for a model without classes, notes: what Python would warn of, seconds}. `seed`: a whole number from 0 to 2^64 - 1
  // (a number, a BigInt or its digits). `label`: a class number or name, a list with one for each sample, or nothing.
  // `prompt`, and where the page was made with guidance `negative_prompt`: a text for all samples, a list with one for
  // each, or nothing.
  // `onBatch` hears how many samples are done.
  async sample({ seed = 0, count = 1, label = null, onBatch = () => {}, ...texts } = {}) {
    const page = await this.page;
    const word = checkedSeed(seed);
    if (!Number.isInteger(count) || count < 1 || count > 65536) {
      throw new RangeError(`expected count from 1 to 65536, got ${count}`);
    }
    const labels = checkedLabels(page.classes, label, count);
    const { rows, notes } = this.#texts(page, texts, count);
    const { channels, height, width } = page.image, size = channels * height * width;
    const data = new Float32Array(count * size), used = [], start = performance.now();
    for (let first = 0; first < count; first += page.max_batch) {
      const part = labels.slice(first, first + page.max_batch);
      const prompts = {};
      for (const name of Object.keys(rows)) prompts[name] = rows[name].slice(first, first + part.length);
      const done = await this.#ask({ seed: word, first, labels: part, prompts });
      data.set(done.images, first * size);
      used.push(...(done.labels ?? []));
      onBatch(first + part.length);
    }
    const seconds = (performance.now() - start) / 1000;
    return { data, shape: [count, channels, height, width], labels: page.classes ? used : null, notes, seconds };
  }

  // The tokens of each text that the model takes, by its name, and what is to be said of them.
  #texts(page, texts, count) {
    const taken = page.prompt?.inputs ?? [], rows = {}, notes = [];
    for (const name of Object.keys(texts)) {
      if (taken.includes(name) || (texts[name] ?? null) === null) continue;
      if (name === "negative_prompt" && page.prompt) {
        throw new RangeError("this page was made without guidance, which leads away from a negative_prompt; leave it out");
      }
      throw new RangeError(`this model takes no ${name.slice(0, 40)}; leave it out`);
    }
    if (taken.length) this.#prompts ??= new Prompts(page.prompt);
    for (const name of taken) {
      const made = this.#prompts.rows(texts[name], count, name);
      rows[name] = made.rows;
      notes.push(...made.notes);
    }
    return { rows, notes };
  }

  #ask(question) {
    const id = this.#count++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#worker.postMessage({ id, ...question });
    });
  }

  #answer({ id, error, ...result }) {
    const { resolve, reject } = this.#waiting.get(id);
    this.#waiting.delete(id);
    if (error === undefined) resolve(result);
    else reject(new Error(error));
  }
}

function checkedSeed(seed) {
  let word = null;
  try {
    if (typeof seed === "bigint" || Number.isSafeInteger(seed) || /^\d{1,20}$/.test(seed)) word = BigInt(seed);
  } catch { /* not a number */ }
  if (word === null || word < 0n || word > MAX_WORD) {
    throw new RangeError(`expected seed as a whole number from 0 to 2^64 - 1, got ${String(seed).slice(0, 40)}`);
  }
  return word;
}

function checkedLabels(classes, label, count) {
  if (label === null || label === undefined) return Array(count).fill(null);
  if (!classes) throw new RangeError("this model has no classes; leave label out");
  const given = Array.isArray(label) ? label : Array(count).fill(label);
  if (given.length !== count) throw new RangeError(`expected one label for each of ${count} samples, got ${given.length}`);
  return given.map((each) => {
    if (each === null) return null;
    const number = typeof each === "string" ? classes.names.indexOf(each) : each;
    if (!Number.isInteger(number) || number < 0 || number >= classes.count) {
      throw new RangeError(`expected a class from 0 to ${classes.count - 1}, got ${String(each).slice(0, 40)}`);
    }
    return number;
  });
}
