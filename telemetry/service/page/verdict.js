// What is happening, whether it is normal, and the one step to look at: by the rules of telemetry/verdict.py.

const STATES = ["failed", "stuck", "slow", "running", "cancelled", "done"]; // the worst one first

// The time remaining, counted down since it was received; null if it is unknown.
function remaining() {
  const { remaining: known, now: since } = state.about, passed = now() - since;
  if (!known) return null;
  const left = seconds => Math.max(0, seconds - passed);
  return { ...known, seconds: left(known.seconds), low: left(known.low), high: left(known.high) };
}

// The nearest step with a usual duration: `step`, or one that contains it.
function expectedOf(step) {
  let at = step;
  for (let walked = 0; at && !at.usual && walked < MOST_ANCESTORS; walked++) at = state.steps.get(at.parent);
  return at?.usual ? at : null;
}

// Slower than usual, itself or what it belongs to, and it is not known that it waits for a stuck one.
function isSlow(step) {
  if (!isRunning(step) || makeTree().stuck.size) return false;
  const expected = expectedOf(step);
  if (!expected || !isRunning(expected)) return false;
  const { usual } = expected;
  return secondsOf(expected) > Math.max(usual.high, RULES.slowFactor * usual.seconds, usual.seconds + RULES.slowSeconds);
}

// How long a step has run, beside what is usual for it or for what it belongs to.
function durationOf(step, time = ticking(secondsOf(step))) {
  const expected = expectedOf(step);
  if (!expected || expected.kind === "node" || expected.kind === "cluster") return time;
  return expected === step ? `${time}, usually ${formatUsual(step.usual)}` : `${time}; ${titleOf(expected)} usually takes ${formatDuration(expected.usual.seconds)}`;
}

// The failed steps that are reasons themselves: not those that contain another one, and not those that a step got over.
function causes({ inside }) {
  const counts = step => {
    const outer = state.steps.get(step.parent);
    if (!outer || step.kind === "node") return true;
    return isRunning(outer) ? RULES.fatal.includes(step.kind) : hasFailed(outer);
  };
  const found = [...state.steps.values()].filter(step => hasFailed(step) && counts(step) && !inside(step).some(hasFailed));
  return found.sort((a, b) => (a.outcome === "cancelled") - (b.outcome === "cancelled") || a.end - b.end);
}

// Of the steps that run, the one that the others wait for: in each node, of the processes of a family (the workers) the step
// that began first, and of those families the one that began last, because the outer processes wait for the inner ones.
function stepToLookAt(leaves) {
  const nodes = new Map();
  for (const step of leaves.map(shownFor)) {
    const family = String(step.attributes?.process ?? "").replace(/[\d_:-]*(TP|PP|DP)?\d+$/, "");
    if (!nodes.has(step.node)) nodes.set(step.node, new Map());
    const families = nodes.get(step.node), first = families.get(family);
    if (!first || step.start < first.start) families.set(family, step);
  }
  const ofNodes = [...nodes.values()].map(families => [...families.values()].reduce((a, b) => (b.start > a.start ? b : a)));
  return ofNodes.length ? ofNodes.reduce((a, b) => (b.start < a.start ? b : a)) : null;
}

// The steps that have ended, each with its own seconds, in which none of its inner steps ran, the longest first. Those of a step
// that only waits are the ones in which no other step ran on its node.
function longestSteps() {
  const { inside } = makeTree(), waits = step => step.name.startsWith("wait_for_"), ended = [...state.steps.values()].filter(step => !isRunning(step));
  const working = grouped(ended.filter(step => !inside(step).length && !waits(step)).sort(byStart), step => step.node);
  const ofNodes = new Map(working.map(steps => [steps[0].node, steps]));
  return ended.map(step => ({ step, seconds: secondsAlone(step, waits(step) ? ofNodes.get(step.node) ?? [] : inside(step)) })).sort((a, b) => b.seconds - a.seconds);
}

// The seconds of a step in which none of the `others` ran, which are in the order of their start.
function secondsAlone(step, others) {
  let alone = 0, at = step.start;
  for (const other of others) {
    if (other.start >= endOf(step)) break;
    alone += Math.max(0, other.start - at);
    at = Math.max(at, endOf(other));
  }
  return alone + Math.max(0, endOf(step) - at);
}

const hasProgress = step => step?.done != null; // in its own unit

// The step that stands for `step` in words: for a file, its download, which has the progress of all files.
function shownFor(step) {
  let at = step;
  while (hasProgress(state.steps.get(at.parent))) at = state.steps.get(at.parent);
  return at;
}

// The state of a step; that of a node, also by what lies inside it.
function stateOf(step, states) {
  return states?.get(step.id) ?? (isRunning(step) ? (makeTree().stuck.has(step.id) ? "stuck" : "running")
    : step.outcome === "finished" ? "done" : step.outcome === "cancelled" ? "cancelled" : "failed");
}

function statesOfNodes() {
  const { causes, leaves, stuck } = makeTree(), states = new Map();
  const mark = (step, found) => {
    const node = nodeOf(step);
    if (node && STATES.indexOf(found) < STATES.indexOf(states.get(node.id) ?? stateOf(node))) states.set(node.id, found);
  };
  for (const step of causes) mark(step, stateOf(step));
  for (const step of leaves) if (isSlow(step)) { mark(step, "slow"); states.set(step.id, "slow"); }
  for (const id of stuck.keys()) if (state.steps.has(id)) { mark(state.steps.get(id), "stuck"); states.set(id, "stuck"); }
  return states;
}

// The verdict: its state, the words for it, and the step to look at.
function verdict() {
  const root = rootStep();
  if (!root) return { state: "waiting", words: state.live ? "Waiting for the first step" : "No run", step: null };
  const { causes, leaves, stuck, nodes } = makeTree(), cause = causes.find(step => step.outcome !== "cancelled");
  const failedNodes = nodes > 1 ? new Set(causes.filter(step => step.outcome !== "cancelled").map(step => nodeOf(step)?.id)).size : 0;
  const some = failedNodes ? `${failedNodes} of ${nodes} nodes failed` : null;
  if (hasFailed(root)) return { state: root.outcome === "cancelled" && !cause ? "cancelled" : "failed", words: some ?? sentence(root.outcome), step: causes[0] ?? root };
  if (!isRunning(root)) return { state: cause ? "failed" : "ready", words: some ? `Ready, ${some}` : "Ready", step: cause ?? null };
  if (!state.live) return { state: "unknown", words: "Not known", step: stepToLookAt(leaves) };
  if (cause) return { state: "failed", words: some ?? "Failing", step: cause };
  const [culprit] = stuck.values();
  if (culprit) return { state: "stuck", words: "Stuck", step: state.steps.get(culprit.step) ?? null, stuck: culprit };
  const slow = stepToLookAt(leaves.filter(isSlow));
  if (slow) return { state: "slow", words: "Slower than usual", step: slow };
  return { state: "starting", words: root.kind === "engine_restart" ? "Restarting" : "Starting", step: stepToLookAt(leaves) };
}
