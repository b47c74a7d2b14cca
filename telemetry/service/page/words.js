// How things are said, and the making of elements. Text is always set as text, never as markup.

const KINDS = ["cluster", "node", "phase", "download", "file", "ray", "engine", "engine_step", "callback"];
const colourOf = step => `var(--${hasFailed(step) ? "bad" : KINDS.includes(step.kind) ? step.kind : "other"})`;

function titleOf(step) {
  if (step.kind === "phase" || step.kind === "engine_step") return step.name.replaceAll("_", " ");
  return `${step.kind} ${step.name}`;
}

function formatDuration(seconds) {
  if (seconds < 0.9995) return seconds < 0.0095 ? `${+(seconds * 1000).toPrecision(2)} ms` : `${Math.round(seconds * 1000)} ms`;
  if (seconds < 59.95) return `${seconds < 10 ? seconds.toFixed(2) : seconds.toFixed(1)} s`;
  const whole = Math.round(seconds), minutes = Math.floor(whole / 60);
  if (minutes < 60) return whole % 60 ? `${minutes} min ${whole % 60} s` : `${minutes} min`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

const ticking = seconds => seconds < 60 ? `${seconds.toFixed(1)} s` : formatDuration(seconds);

function formatQuantity(number, unit) {
  if (unit !== "By") return unit === "1" ? String(+number.toPrecision(6)) : `${number} ${unit}`;
  let power = 0;
  while (Math.abs(number) >= 999.5 && power < 5) { number /= 1000; power++; }
  return `${+number.toPrecision(3)} ${["B", "kB", "MB", "GB", "TB", "PB"][power]}`;
}

function howFar(step) {
  const parts = [step.total ? `${formatQuantity(step.done, step.unit)} of ${formatQuantity(step.total, step.unit)}` : formatQuantity(step.done, step.unit)];
  if (step.rate > 0) {
    parts.push(`${formatQuantity(step.rate, step.unit)}/s`);
    if (step.total) parts.push(`${formatDuration(Math.max(1, Math.round((step.total - step.done) / step.rate)))} left`);
  }
  return parts.join(" · ");
}

function traceUrl(span) {
  const template = state.about.trace_url;
  if (!template || !/^https?:\/\//i.test(template)) return null;
  return template.replaceAll("{trace}", encodeURIComponent(state.about.trace)).replaceAll("{span}", encodeURIComponent(span ?? ""));
}

function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "kind") element.style.setProperty("--kind", value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
}

const byId = id => document.getElementById(id);
const say = (element, text) => { if (element.textContent !== text) element.textContent = text; };
