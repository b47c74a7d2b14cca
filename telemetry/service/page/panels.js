// Below the answers: what runs, what callbacks changed, how each node is, and the counts by state.

const MOST = 8; // lines in a panel
const MOST_SQUARES = 2000;

function grouped(steps, key) {
  const groups = new Map();
  for (const step of steps) {
    if (!groups.has(key(step))) groups.set(key(step), []);
    groups.get(key(step)).push(step);
  }
  return [...groups.values()];
}

// Lines with `key`, `step`, `title`, `time` and perhaps `note`, `share` of a bar, and `chips`. If they are the same as before,
// only texts and bars are set, so that nothing jumps and the focus stays.
function fill(list, lines) {
  const shown = lines.slice(0, MOST), known = shown.map(line => line.key).join("\n") + lines.length;
  if (list.dataset.known !== known) {
    list.dataset.known = known;
    const more = lines.length > MOST ? [make("li", { className: "faint" }, `and ${lines.length - MOST} more`)] : [];
    list.replaceChildren(...shown.map(makeLine), ...more);
  }
  shown.forEach((line, number) => setLine(list.children[number].firstChild, line));
}

function makeLine(line) {
  const parts = [make("i", { className: "dot" }), make("span"), make("span", { className: "num time" })];
  if (line.share !== undefined) parts.push(make("span", { className: "track", role: "progressbar", "aria-valuemin": 0, "aria-valuemax": 100, "aria-label": line.title }, make("i")));
  parts.push(make("span", { className: "note num faint" }));
  if (line.chips) parts.push(make("span", { className: "note" }, ...line.chips.map(key => make("code", { className: "chip" }, key))));
  return make("li", {}, make("button", { type: "button", className: "line", onclick: event => look(event.currentTarget.dataset.id) }, ...parts));
}

function setLine(button, line) {
  button.dataset.id = line.step.id;
  button.style.setProperty("--hue", line.slow ? "var(--warn)" : colourOf(line.step));
  say(button.children[1], line.title);
  say(button.children[2], line.time);
  if (line.share !== undefined) {
    const track = button.children[3], percent = Math.floor(100 * Math.min(1, line.share));
    track.firstChild.style.width = `${percent}%`;
    track.setAttribute("aria-valuenow", percent);
    track.setAttribute("aria-valuetext", line.note || `${percent} %`);
  }
  say(button.querySelector(".note"), line.note ?? "");
}

function drawRunning() {
  const { leaves } = makeTree(), shown = [...new Set(leaves.map(shownFor))], chosenFirst = verdict().step?.id;
  const lines = grouped(shown, titleOf).map(steps => {
    const step = steps.find(each => each.id === chosenFirst) ?? steps.reduce((a, b) => (a.start <= b.start ? a : b)), many = steps.length > 1, sum = key => steps.reduce((all, each) => all + (each[key] ?? 0), 0);
    const far = hasProgress(step) && { done: sum("done"), total: steps.every(each => each.total) ? sum("total") : null, rate: sum("rate"), unit: step.unit };
    const slow = steps.some(each => isSlow(each) || makeTree().stuck.has(each.id)), { usual } = step;
    const notes = [many ? `longest: ${[step.attributes?.process, makeTree().nodes > 1 && step.node].filter(Boolean).join(" on ") || "this"}` : "", far ? formatProgress(far) : "", usual ? `usually ${formatUsual(usual)}` : ""];
    return { key: `${step.kind} ${step.name} ${far?.total ? 1 : 0}${usual ? 1 : 0} ${many ? "" : step.id}`, step, slow, title: many ? `${titleOf(step)} · ${steps.length} times` : placeOf(step), time: ticking(secondsOf(step)),
      note: notes.filter(Boolean).join(" · "), share: far?.total ? far.done / far.total : usual ? secondsOf(step) / usual.seconds : undefined };
  });
  const first = line => line.step.id === chosenFirst, { state: found } = verdict(), over = !isRunning(rootStep());
  lines.sort((a, b) => first(b) - first(a) || b.slow - a.slow || a.step.start - b.step.start);
  const shownLines = found === "failed" || found === "cancelled" ? [...(makeTree().causes.length > 1 ? failedLines() : []), ...lines] : over && !lines.length ? longestLines() : lines;
  // one line that the headline has already, or a list beside nothing else, is no panel
  byId("running-panel").hidden = !shownLines.length || (shownLines.length === 1 && shownLines[0].step.id === chosenFirst && byId("callbacks-panel").hidden);
  say(byId("running-title"), shownLines === lines ? "Running now" : found === "ready" ? "Where the time went" : makeTree().causes.length < 2 ? "Still running" : lines.length ? "What failed, and what runs" : "What failed");
  fill(byId("running"), shownLines);
}

// What failed, the same failures as one line.
function failedLines() {
  return grouped(makeTree().causes, step => `${titleOf(step)}\n${step.outcome}\n${step.error}`).map(steps => ({ key: `${steps[0].id} ${steps.length}`, step: steps[0],
    title: `${steps.length > 1 ? `${titleOf(steps[0])} · ${steps.length} times, first on ${steps[0].node}` : placeOf(steps[0])} ${steps[0].outcome.replace("_", " ")}`,
    time: clock(steps[0].end), note: steps[0].error ?? "no reason given" }));
}

// The steps with the most time of their own, of a start that is over.
function longestLines() {
  const whole = Math.max(0.001, secondsOf(rootStep()));
  return longestSteps().slice(0, 5).filter(({ seconds }) => seconds > 0.005 * whole).map(({ step, seconds }) => ({ key: step.id, step, title: placeOf(step), time: formatDuration(seconds),
    share: seconds / whole, note: `${Math.round(100 * seconds / whole)} % of the start${step.usual && seconds === secondsOf(step) ? ` · usually ${formatUsual(step.usual)}` : ""}` }));
}

const changedBy = step => String(step.attributes?.changed ?? "").split(",").filter(Boolean);
const isNotable = step => step.kind !== "callback" || hasFailed(step) || changedBy(step).length > 0 || secondsOf(step) >= RULES.notableSeconds;

function drawCallbacks() {
  const called = [...state.steps.values()].filter(step => step.kind === "callback" && !isRunning(step) && isNotable(step));
  byId("callbacks-panel").hidden = !called.length;
  if (!called.length) return;
  const lines = grouped(called, step => `${step.name} ${step.attributes?.phase} ${step.attributes?.changed ?? ""} ${hasFailed(step)}`).map(steps => {
    const step = steps.reduce((a, b) => (secondsOf(b) > secondsOf(a) ? b : a)), chips = changedBy(step);
    return { key: `${step.name} ${step.attributes?.phase} ${chips} ${step.outcome} ${steps.length}`, step, title: `${step.name} in ${step.attributes?.phase ?? "?"}${steps.length > 1 ? ` · ${steps.length} times` : ""}`,
      time: isRunning(step) ? ticking(secondsOf(step)) : formatDuration(secondsOf(step)), chips: chips.length ? chips : undefined, note: hasFailed(step) ? `${step.outcome.replace("_", " ")}: ${step.error ?? "no reason given"}` : "" };
  });
  fill(byId("callbacks"), lines.sort((a, b) => hasFailed(b.step) - hasFailed(a.step) || a.step.start - b.step.start));
}

// One square for each node, where there are more than fit on the screen as rows.
function drawMap(states) {
  const nodes = [...state.steps.values()].filter(step => step.kind === "node"), map = byId("map");
  byId("nodes-panel").hidden = nodes.length <= 8 || nodes.length > MOST_SQUARES;
  if (byId("nodes-panel").hidden) return;
  nodes.sort((a, b) => (a.node < b.node ? -1 : 1));
  while (map.children.length > nodes.length) map.lastChild.remove();
  while (map.children.length < nodes.length) map.append(make("button", { type: "button", tabIndex: map.children.length ? -1 : 0 }));
  nodes.forEach((node, number) => {
    const square = map.children[number], found = stateOf(node, states), name = `${node.node}: ${found === "done" ? "ready" : found}`;
    if (square.dataset.name === name && square.dataset.id === node.id) return;
    square.className = found;
    square.title = square.dataset.name = name;
    square.setAttribute("aria-label", name);
    square.dataset.id = node.id;
  });
}

let wantedState = null;

// How many there are in each state, as buttons that filter: nodes if there are several, else steps.
function drawStates(states) {
  const ofNodes = makeTree().nodes > 1, counts = new Map(STATES.map(name => [name, 0]));
  const { causes, leaves, inside } = makeTree(), innermost = new Set([...causes, ...leaves]);
  let all = 0;
  for (const step of state.steps.values()) {
    if (ofNodes ? step.kind !== "node" : isHidden(step) || (!innermost.has(step) && inside(step).some(each => !isHidden(each)))) continue;
    const found = stateOf(step, states);
    counts.set(found, counts.get(found) + 1);
    all++;
  }
  if (wantedState && !counts.get(wantedState)) wantedState = null;
  const shown = [["all", all], ...[...counts].filter(([, count]) => count)], bar = byId("states");
  const known = shown.map(([name]) => name).join() + ofNodes;
  if (bar.dataset.known !== known) {
    bar.dataset.known = known;
    bar.replaceChildren(...shown.map(([name]) => make("button", { type: "button", className: name, onclick: () => { wantedState = name === "all" || name === wantedState ? null : name; byId("waterfall").scrollTop = 0; draw(); } })));
  }
  shown.forEach(([name, count], number) => {
    say(bar.children[number], name === "all" ? ofNodes ? `All ${count} nodes` : "All steps" : `${sentence(name === "done" && ofNodes ? "ready" : name)} ${count}`);
    bar.children[number].setAttribute("aria-pressed", (wantedState ?? "all") === name);
  });
}

function drawLegend() {
  const hues = new Set(), kinds = { usual: false, bad: false, warn: false };
  for (const step of state.steps.values()) {
    if (isHidden(step)) continue;
    hues.add(hueOf(step));
    kinds.usual ||= Boolean(step.usual);
    kinds.bad ||= hasFailed(step);
    kinds.warn ||= isSlow(step) || makeTree().stuck.has(step.id);
  }
  const swatches = Object.entries(HUES).filter(([hue]) => hues.has(hue)).map(([hue, name]) => [name, `var(--${hue})`, ""]);
  if (kinds.usual) swatches.push(["Usual duration", "", "usual"]);
  if (kinds.warn) swatches.push(["Stuck or slower than usual", "var(--warn)", ""]);
  if (kinds.bad) swatches.push(["Failed", "var(--bad)", ""]);
  const known = swatches.map(([name]) => name).join();
  if (byId("legend").dataset.known === known) return;
  byId("legend").dataset.known = known;
  byId("legend").replaceChildren(...swatches.map(([name, hue, kind]) => make("span", {}, make("i", { className: `dot ${kind}`, hue }), name)));
}
