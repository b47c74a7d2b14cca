// All that is known of one step, and the evidence if it is stuck.

let detailed = ""; // what the panel shows: it is made anew when that changes, and only its times otherwise

function details(focus = false) {
  const step = state.steps.get(chosen), panel = byId("details");
  if (!step) { closeDetails(); return; }
  const stuck = makeTree().stuck.get(step.id), known = `${step.id} ${step.outcome} ${JSON.stringify(stuck?.stacks ?? null)} ${stuck?.reason} ${JSON.stringify(step.attributes)}`;
  if (panel.hidden || known !== detailed) {
    detailed = known;
    panel.replaceChildren(...contents(step, stuck));
    panel.hidden = false;
  }
  say(panel.querySelector(".took-now"), isRunning(step) ? ticking(secondsOf(step)) : formatDuration(secondsOf(step)));
  if (step.done != null && panel.querySelector(".progress-now")) say(panel.querySelector(".progress-now"), formatProgress(step));
  if (focus) panel.querySelector("h2").focus();
}

function contents(step, stuck) {
  const close = make("button", { type: "button", className: "shut", ariaLabel: "Close", onclick: () => { closeDetails(); byId("waterfall").focus(); } }, "×");
  const began = `${clock(step.start, 3)}, ${formatDuration(step.start - bounds().start)} after the first step`;
  const rows = { node: step.node, outcome: step.outcome, error: step.error, took: "took-now", usually: step.usual && formatUsual(step.usual), began,
    ended: step.end && clock(step.end, 3), ...(step.done != null ? { progress: "progress-now" } : {}), ...step.attributes, span: step.id };
  const terms = Object.entries(rows).filter(([, value]) => value != null && value !== "").flatMap(([name, value]) => [make("dt", {}, name.replaceAll("_", " ")),
    ["took", "progress"].includes(name) && String(value).endsWith("-now") ? make("dd", { className: `num ${value}` }) : make("dd", {}, String(value))]);
  const url = traceUrl(step.id), tools = [make("button", { type: "button", className: "tool", onclick: () => zoomTo(state.steps.get(step.id)) }, "Zoom to it")];
  if (url) tools.push(make("a", { className: "tool", href: url, target: "_blank", rel: "noreferrer" }, "See it in its trace ↗"));
  return [close, make("h2", { tabIndex: -1 }, titleOf(step)), ...(stuck ? evidence(stuck) : []), make("p", { className: "tools" }, ...tools), make("dl", {}, ...terms)];
}

// Why a step is stuck: the reason, then what its process does, waits for and has printed.
function evidence(stuck) {
  const numbers = { process: `${stuck.process} (pid ${stuck.pid})`, "CPU used lately": stuck.cpu_seconds == null ? null : formatDuration(stuck.cpu_seconds),
    "read lately": stuck.read_bytes == null ? null : formatQuantity(stuck.read_bytes, "By") };
  const terms = Object.entries(numbers).filter(([, value]) => value != null).flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]);
  const parts = [["Last lines of its log", stuck.log], ["Stacks of its threads", stuck.stacks], ["Open sockets", stuck.sockets]].filter(([, texts]) => texts?.length);
  return [make("p", { className: "why" }, stuck.reason), make("dl", {}, ...terms),
    ...parts.map(([title, texts], number) => make("details", { open: number === 0 }, make("summary", {}, `${title} (${texts.length})`), make("pre", {}, texts.join(title.startsWith("Stacks") ? "\n\n" : "\n"))))];
}

function closeDetails() {
  byId("details").hidden = true;
}

// Choose a step, show it in its place, and open its details.
function look(id) {
  if (!state.steps.has(id)) return;
  byId("filter").value = "";
  wantedState = null;
  choose(id);
  details(true);
}
