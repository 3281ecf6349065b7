// Runs the model, so that the page stays alive meanwhile: {seed, first, labels, prompts} in, {images} or {error} out.

import * as ort from "./onnxruntime-web/ort.wasm.bundle.min.mjs";
import { LABEL_STREAM, normal, uniform } from "./noise.js";

const here = new URL(".", import.meta.url);
ort.env.wasm.numThreads = 1;
ort.env.wasm.wasmPaths = { wasm: new URL("onnxruntime-web/ort-wasm-simd-threaded.wasm", here).href };
ort.env.logLevel = "error";

async function fetched(name) {
  const response = await fetch(new URL(name, here));
  if (!response.ok) throw new Error(`${name}: the server answers ${response.status}`);
  return response.arrayBuffer();
}

async function load() {
  const page = JSON.parse(new TextDecoder().decode(await fetched("page.json")));
  const model = await fetched("model.onnx");
  if (globalThis.crypto?.subtle) { // only where the page comes over https, or from this machine
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", model));
    const hex = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
    if (hex !== page.model_sha256) throw new Error("model.onnx is not the file that the page was made with");
  }
  const session = await ort.InferenceSession.create(model, { executionProviders: ["wasm"] });
  return { page, session };
}

// One input for samples first .. first + labels.length - 1 of a seed; with steps, [steps, count, ...].
function noise(input, seed, first, count) {
  const draw = input.distribution === "uniform" ? uniform : normal;
  const size = input.shape.reduce((a, b) => a * b, 1), steps = input.steps ?? 1;
  const data = new Float32Array(steps * count * size);
  for (let step = 0; step < steps; step++) {
    for (let i = 0; i < count; i++) {
      const start = (step * count + i) * size;
      draw(seed, BigInt(first + i), BigInt(input.stream + step), data.subarray(start, start + size));
    }
  }
  const dims = [...(input.steps === null ? [] : [steps]), count, ...input.shape];
  return new ort.Tensor("float32", data, dims);
}

// The class of a sample for which the caller left it open.
function openLabel(classes, seed, place) {
  if (classes.none !== null) return classes.none;
  const drawn = new Float32Array(1);
  uniform(seed, BigInt(place), LABEL_STREAM, drawn);
  return Math.trunc(Math.min(Math.fround(drawn[0] * classes.count), classes.count - 1));
}

async function run({ page, session }, { seed, first, labels, prompts }) {
  const feeds = {};
  for (const input of page.inputs) feeds[input.name] = noise(input, seed, first, labels.length);
  const used = page.classes && labels.map((label, i) => label ?? openLabel(page.classes, seed, first + i));
  if (used && page.label) {
    feeds[page.label] = new ort.Tensor("int64", BigInt64Array.from(used, BigInt), [used.length]);
  }
  for (const [name, rows] of Object.entries(prompts)) {
    const tokens = BigInt64Array.from(rows.flat(), BigInt);
    feeds[name] = new ort.Tensor("int64", tokens, [rows.length, page.prompt.length]);
  }
  const results = await session.run(feeds, [page.output]);
  const images = Float32Array.from(results[page.output].data);
  if (!images.every(Number.isFinite)) throw new Error("the samples came out NaN or infinite");
  return { images, labels: used };
}

const ready = load();
ready.then(({ page }) => postMessage({ page }), (failure) => postMessage({ error: String(failure?.message ?? failure) }));

async function answer(data) {
  try {
    const result = await run(await ready, data);
    postMessage({ id: data.id, ...result }, [result.images.buffer]);
  } catch (failure) {
    postMessage({ id: data.id, error: String(failure?.message ?? failure) });
  }
}

let last = Promise.resolve(); // a session runs one batch at a time
onmessage = ({ data }) => { last = last.then(() => answer(data)); };
