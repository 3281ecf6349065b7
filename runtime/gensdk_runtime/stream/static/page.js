// Shows the two motion JPEGs, and asks for the figures once a second.

const INTERVAL = 1000;

const part = (id) => document.getElementById(id);

function whole(numbers) {
  return numbers.map((number) => Math.round(number)).join(" / ");
}

function show(state) {
  part("model").textContent = state.model;
  document.title = `${state.model} - gensdk translate`;
  part("status").textContent = `${state.source}${state.live ? ", live" : ""}; ${state.shown} frames so far`;
  const figures = state.figures;
  if (!figures) return;
  part("fps").textContent = figures.fps.toFixed(1);
  for (const name of ["dropped", "skipped", "corrupt"]) part(name).textContent = figures[name];
  if (figures.frames) {
    part("age").textContent = `${whole(Object.values(figures.age_ms))} ms`;
    part("stages").textContent = `${Object.values(figures.stage_ms).map((ms) => ms.toFixed(1)).join(" / ")} ms`;
  }
}

async function poll() {
  try {
    const answer = await fetch("figures.json", { cache: "no-store" });
    if (!answer.ok) throw new Error(answer.statusText);
    show(await answer.json());
  } catch {
    part("status").textContent = "The stream has ended, or can't be reached.";
  }
  setTimeout(poll, INTERVAL);
}

part("source").src = "source.mjpg";
part("result").src = "result.mjpg";
poll();
