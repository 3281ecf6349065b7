// The page's controls and canvas. Hosts call window.gensdk.sample(); see sampler.js.

import { Sampler } from "./sampler.js";

const GAP = 2; // between the images
const GRID = 640, MAX_SCALE = 16; // pixels are enlarged by a whole number, to fill about so wide a grid
const ALL_CLASSES = "all", ANY_CLASS = "any";

const element = (id) => document.getElementById(id);
const sampler = new Sampler();
let page = null;

window.gensdk = {
  ready: sampler.page,
  sample: (options) => sampler.sample(options),
};

function tell(text) {
  element("status").textContent = text;
}

function complain(failure) {
  element("error").textContent = `This did not work: ${failure?.message ?? failure}`;
  element("error").hidden = false;
  tell("");
}

function fillClasses(classes) {
  if (!classes) return;
  const add = (value, text) => element("label").add(new Option(text, value));
  add(ANY_CLASS, classes.none === null ? "any" : "none");
  add(ALL_CLASSES, "one after another");
  classes.names.forEach((name, number) => add(number, name));
  element("class-picker").hidden = false;
}

// Texts are only ever values and textContent, never markup.
function fillPrompts(prompt) {
  for (const name of prompt?.inputs ?? []) element(`${name}-field`).hidden = false;
  if (prompt) element("prompt").value = prompt.example;
}

function chosenTexts() {
  return Object.fromEntries((page.prompt?.inputs ?? []).map((name) => [name, element(name).value]));
}

function note(notes) {
  element("notes").textContent = notes.join("\n");
  element("notes").hidden = notes.length === 0;
}

function chosenLabel(count) {
  const value = element("label").value;
  if (!page.classes || value === ANY_CLASS) return null;
  if (value === ALL_CLASSES) return Array.from({ length: count }, (_, i) => i % page.classes.count);
  return Number(value);
}

async function draw() {
  const seed = element("seed").value.trim(), count = element("count").valueAsNumber;
  element("error").hidden = true;
  note([]);
  element("draw").disabled = true;
  tell(`Drawing ${count} ...`);
  try {
    const onBatch = (done) => tell(`Drawing: ${done} of ${count} ...`);
    const result = await sampler.sample({ seed, count, label: chosenLabel(count), ...chosenTexts(), onBatch });
    show(result);
    note(result.notes);
    const seconds = result.seconds < 10 ? result.seconds.toPrecision(2) : result.seconds.toFixed(0);
    tell(`${count} ${count === 1 ? "sample" : "samples"} of seed ${seed} in ${seconds} s`);
  } catch (failure) {
    complain(failure);
  } finally {
    element("draw").disabled = false;
  }
}

// All images in one grid, about square.
function show({ data, shape: [count, channels, height, width] }) {
  const [low, high] = page.image.value_range;
  const columns = Math.ceil(Math.sqrt(count)), rows = Math.ceil(count / columns);
  const scale = Math.max(1, Math.min(MAX_SCALE, Math.floor(GRID / columns / width)));
  const canvas = element("canvas"), context = canvas.getContext("2d");
  const image = new ImageData(width, height), small = new OffscreenCanvas(width, height);
  canvas.width = columns * (width * scale + GAP) - GAP;
  canvas.height = rows * (height * scale + GAP) - GAP;
  context.imageSmoothingEnabled = false;
  const size = height * width;
  for (let i = 0; i < count; i++) {
    for (let at = 0; at < size; at++) {
      for (let color = 0; color < 3; color++) {
        const value = data[(i * channels + (channels < 3 ? 0 : color)) * size + at];
        image.data[4 * at + color] = ((value - low) / (high - low)) * 255; // rounded and clipped by its type
      }
      image.data[4 * at + 3] = 255;
    }
    small.getContext("2d").putImageData(image, 0, 0);
    const x = (i % columns) * (width * scale + GAP), y = Math.floor(i / columns) * (height * scale + GAP);
    context.drawImage(small, x, y, width * scale, height * scale);
  }
  canvas.setAttribute("aria-label", `${count} samples of ${page.name}`);
  canvas.hidden = false;
  canvas.toBlob((png) => {
    const link = element("save");
    if (link.href) URL.revokeObjectURL(link.href);
    link.href = URL.createObjectURL(png);
    link.hidden = false;
  });
}

element("controls").addEventListener("submit", (event) => {
  event.preventDefault();
  draw();
});
element("controls").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.target.tagName !== "TEXTAREA") return;
  event.preventDefault(); // with Shift it breaks the line
  if (!element("draw").disabled) element("controls").requestSubmit();
});
element("shuffle").addEventListener("click", () => {
  element("seed").value = crypto.getRandomValues(new Uint32Array(1))[0];
  if (!element("draw").disabled) draw();
});

tell("Loading the model ...");
try {
  page = await sampler.page;
  fillClasses(page.classes);
  fillPrompts(page.prompt);
  element("draw").disabled = false;
  await draw();
} catch (failure) {
  complain(failure);
}
