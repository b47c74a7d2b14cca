// Texts and elements. Text is always set as text, never as markup.

// One colour for one thing: what the time of a step is spent on. Red is for failures and amber for what is stuck or slow.
const HUES = { download: "Download", ray: "Ray and placement", import: "Processes and imports", weights: "Weights",
  compile: "Compile and warm up", engine: "Engine", callback: "Callback", work: "Other", outer: "Whole node" };
const HUES_OF_KINDS = { cluster: "outer", node: "outer", download: "download", listing: "download", file: "download", ray: "ray", callback: "callback" };
const HUES_OF_NAMES = [[/import|process|fork/, "import"], [/placement/, "ray"], [/download/, "download"],
  [/weight|load_model|model_load/, "weights"], [/compile|inductor|graph|capture|warm|profile|kernel/, "compile"]];

function hueOf(step) {
  const hue = HUES_OF_KINDS[step.kind] ?? HUES_OF_NAMES.find(([pattern]) => pattern.test(step.name))?.[1];
  return hue ?? (step.kind.startsWith("engine") || step.name.includes("engine") ? "engine" : "work");
}

const colourOf = step => `var(--${hasFailed(step) && step.outcome !== "cancelled" ? "bad" : hueOf(step)})`;
const sentence = text => { const words = text.replaceAll("_", " "); return words.charAt(0).toUpperCase() + words.slice(1); };

// The rules are those of telemetry/formatting.py, and RULES comes from there.

function titleOf(step) {
  if (RULES.titleIsName.includes(step.kind)) return step.name.replaceAll("_", " ");
  const words = step.kind.replaceAll("_", " ");
  return step.name === step.kind ? words : `${words} ${RULES.nameIsWords.includes(step.kind) ? step.name.replaceAll("_", " ") : step.name}`;
}

const digits = (number, count) => String(+number.toPrecision(count));
const rounded = number => Number.isFinite(number) ? Math.floor(number + 0.5) : 0;

function formatDuration(seconds) {
  if (!Number.isFinite(seconds)) return "unknown";
  seconds = Math.max(0, seconds);
  if (seconds < 0.9995) return seconds < 0.0095 ? `${digits(seconds * 1000, 2)} ms` : `${rounded(seconds * 1000)} ms`;
  if (seconds < 59.95) return `${digits(seconds, 3)} s`;
  const whole = rounded(seconds), minutes = Math.floor(whole / 60);
  if (minutes < 60) return whole % 60 ? `${minutes} min ${whole % 60} s` : `${minutes} min`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

const ticking = seconds => seconds < 60 ? `${seconds.toFixed(1)} s` : formatDuration(seconds); // of constant width

function formatQuantity(number, unit) {
  if (!Number.isFinite(number)) return "unknown";
  if (unit !== "By") {
    const bare = Number.isInteger(number) && Math.abs(number) < 1e15 ? String(number) : digits(number, 6);
    return unit === "1" ? bare : `${bare} ${unit}`;
  }
  let power = 0;
  while (Math.abs(number) >= 999.5 && power < RULES.prefixes.length - 1) { number /= 1000; power++; }
  return `${digits(number, 3)} ${RULES.prefixes[power]}B`;
}

function formatProgress({ done, total, unit, rate }) {
  const parts = [formatQuantity(done, unit)];
  if (!Number.isFinite(total) || !Number.isFinite(done)) total = null;
  if (total) parts[0] += ` of ${formatQuantity(total, unit)} (${Math.floor(100 * Math.min(1, Math.max(0, done / total)))} %)`;
  if (rate > 0) {
    parts.push(`${formatQuantity(rate, unit)}/s`);
    if (total) parts.push(`${formatDuration(Math.max(1, rounded((total - done) / rate)))} left`);
  }
  return parts.join(", ");
}

// The usual duration of a step: "34 s (30 s to 40 s)".
const formatUsual = ({ seconds, low, high }) => `${formatDuration(seconds)} (${formatDuration(low)} to ${formatDuration(high)})`;

// The title of a step; of an import, with its module.
const fullTitleOf = step => `${titleOf(step)}${step.attributes?.module ? ` ${step.attributes.module}` : ""}`;

// A step with its phase, its process and its node, as one name.
function placeOf(step, withNode = makeTree().nodes > 1) {
  const { process, phase } = step.attributes ?? {}, called = step.kind === "callback" && phase ? ` in ${String(phase).replaceAll("_", " ")}` : "";
  return `${fullTitleOf(step)}${called}${process ? ` · ${process}` : ""}${withNode && step.kind !== "node" && step.node ? ` on ${step.node}` : ""}`;
}

function traceUrl(span) {
  const template = state.about.trace_url;
  if (!template || !/^https?:\/\//i.test(template)) return null;
  return template.replaceAll("{trace}", encodeURIComponent(state.about.trace)).replaceAll("{span}", encodeURIComponent(span ?? ""));
}

function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "hue") element.style.setProperty("--hue", value);
    else if (name.startsWith("aria-") || name === "role") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
}

const byId = id => document.getElementById(id);
const say = (element, text) => { if (element.textContent !== text) element.textContent = text; };
