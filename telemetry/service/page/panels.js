// Above the waterfall: how it stands, what failed, what runs, how far it is, what callbacks changed. Below it: details.

const MOST = 12; // lines in a panel

function drawHead() {
  const { about } = state, root = rootStep(), { nodes } = makeTree();
  if (!root) {
    say(byId("subject"), about.node ?? "phasebus");
    say(byId("status"), state.live ? "nothing has begun" : "no run");
    return;
  }
  const failed = hasFailed(root), status = isRunning(root) ? (state.live ? "starting" : "unknown") : failed ? root.outcome.replace("_", " ") : "ready";
  const model = String(root.attributes?.model ?? "").replace(/\/+$/, "").split("/").pop();
  say(byId("subject"), [nodes > 1 ? `${nodes} nodes` : root.node || about.node, model].filter(Boolean).join(" · "));
  say(byId("status"), status);
  byId("status").className = `pill ${failed ? "failed" : status}`;
  say(byId("about"), `run ${about.run} · trace ${about.trace} · phasebus ${about.phasebus}`);
  say(byId("elapsed"), isRunning(root) ? ticking(secondsOf(root)) : formatDuration(secondsOf(root)));
  const ready = [...state.steps.values()].filter(step => step.kind === "node" && step.outcome === "finished").length;
  say(byId("doing"), nodes > 1 ? `${ready} of ${nodes} nodes ready` : "");
  document.title = `${status} · ${byId("subject").textContent} · phasebus`;
  const url = traceUrl(root.id);
  byId("trace").hidden = !url;
  if (url) byId("trace").href = url;
  const left = about.left_out ? `${about.left_out} more steps began than are kept.` : "";
  say(byId("footnote"), [`${state.steps.size} steps`, left].filter(Boolean).join(". "));
}

function grouped(steps, key) {
  const groups = new Map();
  for (const step of steps) {
    if (!groups.has(key(step))) groups.set(key(step), []);
    groups.get(key(step)).push(step);
  }
  return [...groups.values()];
}

function fill(list, lines) {
  const more = lines.length - MOST;
  const said = lines.slice(0, MOST).map(line => line.key).join("\n") + more;
  if (list.dataset.said !== said) { // the same lines: only their texts and bars are set, so that nothing jumps
    list.dataset.said = said;
    list.replaceChildren(...lines.slice(0, MOST).map(line => line.element()), ...(more > 0 ? [make("li", { className: "faint" }, `and ${more} more`)] : []));
    return;
  }
  lines.slice(0, MOST).forEach((line, number) => { line.update?.(list.children[number]); });
}

const hasProgress = step => step?.done != null; // in its own unit
const isOutermostProgress = step => hasProgress(step) && !hasProgress(state.steps.get(step.parent));

const dotted = (step, text) => make("span", {}, make("i", { className: "dot", kind: colourOf(step) }), text);

function drawRunning() {
  const { inside } = makeTree(), running = [...state.steps.values()].filter(step => isRunning(step) && (!inside(step).some(isRunning) || isOutermostProgress(step)) && !hasProgress(state.steps.get(step.parent)));
  const lines = grouped(running, titleOf).map(steps => {
    const longest = steps.reduce((a, b) => (a.start <= b.start ? a : b));
    const where = steps.length > 1 ? ` · ${steps.length} times, longest on ${longest.node || "the cluster"}` : longest.attributes?.process ? ` · ${longest.attributes.process}` : "";
    const time = () => ticking(secondsOf(longest));
    return { key: titleOf(longest) + where, seconds: secondsOf(longest), update: line => say(line.lastChild, time()),
      element: () => make("li", { onclick: () => choose(longest.id) }, dotted(longest, titleOf(longest) + where), make("span", { className: "num" }, time())) };
  }).sort((a, b) => b.seconds - a.seconds);
  fill(byId("running"), lines.length ? lines : [{ key: "none", element: () => make("li", { className: "faint" }, rootStep() ? "nothing" : "nothing yet") }]);
}

function drawProgress() {
  const shown = [...state.steps.values()].filter(step => isRunning(step) && isOutermostProgress(step)), many = makeTree().nodes > 8;
  byId("progress-panel").hidden = !shown.length;
  const left = step => step.rate > 0 && step.total ? (step.total - step.done) / step.rate : Infinity;
  const lines = grouped(shown, many ? titleOf : step => step.id).map(steps => {
    const last = steps.reduce((a, b) => (left(b) > left(a) ? b : a)), sum = key => steps.reduce((all, step) => all + (step[key] ?? 0), 0);
    const all = { done: sum("done"), total: steps.every(step => step.total) ? sum("total") : null, rate: sum("rate"), unit: last.unit };
    const share = all.total ? 100 * Math.min(1, all.done / all.total) : 0, percent = all.total ? `${Math.floor(share)} %` : "";
    const name = `${titleOf(last)}${steps.length > 1 ? ` · ${steps.length} times` : makeTree().nodes > 1 ? ` · ${last.node}` : ""}`;
    const far = () => steps.length > 1 ? `${formatProgress({ ...all, rate: null })} · ${formatQuantity(all.rate, all.unit)}/s · last is ${last.node}: ${formatProgress(last)}` : formatProgress(all);
    const element = () => {
      const bar = make("i", { kind: colourOf(last) });
      bar.style.width = `${share}%`;
      return make("li", { onclick: () => choose(last.id) }, make("span", {}, name), make("span", { className: "num" }, percent),
        make("div", { className: "track wide" }, bar), make("span", { className: "wide faint num" }, far()));
    };
    return { key: name, left: left(last), element,
      update: line => { say(line.children[1], percent); line.querySelector("i").style.width = `${share}%`; say(line.lastChild, far()); } };
  }).sort((a, b) => b.left - a.left);
  fill(byId("progress"), lines);
}

function drawCallbacks() {
  const called = [...state.steps.values()].filter(step => step.kind === "callback");
  byId("callbacks-panel").hidden = !called.length;
  const lines = grouped(called, step => `${step.name} ${step.attributes?.phase} ${step.attributes?.changed ?? ""} ${hasFailed(step)}`).map(steps => {
    const [step] = steps, changed = String(step.attributes?.changed ?? "").split(",").filter(Boolean);
    const longest = steps.reduce((most, each) => Math.max(most, secondsOf(each)), 0);
    return { key: step.id + steps.length + step.outcome, changed: changed.length + 100 * hasFailed(step), start: step.start,
      element: () => make("li", { onclick: () => choose(step.id) }, dotted(step, `${step.name} in ${step.attributes?.phase ?? "?"}${steps.length > 1 ? ` · ${steps.length} times` : ""}`),
        make("span", { className: "num faint" }, isRunning(step) ? "running" : formatDuration(longest)),
        ...(changed.length ? [make("span", { className: "wide" }, make("span", { className: "faint" }, "changed "), ...changed.map(key => make("code", { className: "chip" }, key)))] : [])) };
  }).sort((a, b) => b.changed - a.changed || b.start - a.start);
  fill(byId("callbacks"), lines);
}

function drawErrors() {
  const { inside } = makeTree(), failed = [...state.steps.values()].filter(step => hasFailed(step) && !inside(step).some(hasFailed));
  byId("errors").hidden = !failed.length;
  const groups = grouped(failed, step => `${titleOf(step)}\n${step.outcome}\n${step.error}`);
  const said = groups.map(steps => steps[0].id + steps.length).join();
  if (byId("errors").dataset.said === said) return;
  byId("errors").dataset.said = said;
  byId("errors").replaceChildren(...groups.slice(0, MOST).map(steps => make("button", { type: "button", onclick: () => { choose(steps[0].id); details(); } },
    make("b", {}, `${titleOf(steps[0])} ${steps[0].outcome.replace("_", " ")}`), ` on ${steps.length > 1 ? `${steps.length} nodes` : steps[0].node || "the cluster"}: ${steps[0].error ?? "no reason given"}`)),
    ...(groups.length > MOST ? [make("span", { className: "faint" }, `and ${groups.length - MOST} more`)] : []));
}

function details() {
  const step = state.steps.get(chosen), panel = byId("details");
  panel.hidden = !step;
  if (!step) return;
  const rows = { node: step.node, outcome: step.outcome, error: step.error, took: formatDuration(secondsOf(step)), began: new Date(step.start * 1000).toLocaleTimeString(),
    ...(step.done != null ? { progress: formatProgress(step) } : {}), ...step.attributes, span: step.id };
  const terms = Object.entries(rows).filter(([, value]) => value != null && value !== "").flatMap(([name, value]) => [make("dt", {}, name.replaceAll("_", " ")), make("dd", {}, String(value))]);
  const url = traceUrl(step.id);
  panel.replaceChildren(make("button", { type: "button", className: "shut", ariaLabel: "Close", onclick: () => { panel.hidden = true; } }, "×"), make("h2", {}, titleOf(step)), make("dl", {}, ...terms),
    ...(url ? [make("p", {}, make("a", { href: url, target: "_blank", rel: "noreferrer" }, "See it in its trace ↗"))] : []));
}
