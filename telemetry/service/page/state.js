// What is known of the run, and which step lies inside which.

const state = { about: {}, steps: new Map(), offset: 0, frozen: null, live: false };
let tree = null; // made anew when it is asked for after a change

const now = () => state.frozen ?? Date.now() / 1000 + state.offset;
const endOf = step => step.end ?? now();
const finish = step => step.end ?? Infinity;
const secondsOf = step => Math.max(0, endOf(step) - step.start);
const isRunning = step => step.outcome === "running";
const hasFailed = step => !isRunning(step) && step.outcome !== "finished";

function takeState(about) {
  const same = about.run === state.about.run;
  if (!same) opened.clear();
  state.about = about;
  state.steps = new Map(about.steps.map(step => [step.id, step]));
  settle(about.now);
  return same;
}

function takeChange(change) {
  for (const step of change.steps) state.steps.set(step.id, step);
  state.about.left_out = change.left_out;
  settle(change.now);
}

function settle(serverNow) {
  state.offset = serverNow - Date.now() / 1000;
  state.frozen = state.live ? null : serverNow;
  tree = null;
}

// A step lies inside its parent; the steps of an engine lie inside the shortest one that contains them, as in reports.
function makeTree() {
  if (tree) return tree;
  const inside = new Map(), outer = new Map(), roots = [];
  const put = (id, parent) => {
    outer.set(id, parent);
    if (!inside.has(parent)) inside.set(parent, new Set());
    inside.get(parent).add(id);
  };
  for (const step of state.steps.values()) put(step.id, firstThatStillRan(step));
  const engine = [...state.steps.values()].filter(step => step.kind === "engine_step")
    .sort((a, b) => a.start - b.start || (finish(b) > finish(a)) - (finish(b) < finish(a)));
  const placed = new Set();
  for (const step of engine) {
    const top = outer.get(step.id), found = narrowest(step, top, inside, placed);
    if (found !== top) { inside.get(top).delete(step.id); put(step.id, found); }
    placed.add(step.id);
  }
  const listed = new Map();
  for (const [parent, ids] of inside) {
    const list = [...ids].map(id => state.steps.get(id)).sort((a, b) => a.start - b.start || (finish(b) > finish(a)) - (finish(b) < finish(a)));
    if (parent === null) roots.push(...list); else listed.set(parent, list);
  }
  const nodes = [...state.steps.values()].filter(step => step.kind === "node").length;
  return tree = { roots, outer, nodes, inside: step => listed.get(step.id) ?? [] };
}

function firstThatStillRan(step) {
  const parent = state.steps.has(step.parent) ? step.parent : null;
  const seen = new Set([step.id]);
  for (let at = parent; at && !seen.has(at); at = state.steps.has(state.steps.get(at).parent) ? state.steps.get(at).parent : null) {
    const other = state.steps.get(at);
    if (isRunning(other) || other.end > step.start || other.end === step.end) return at;
    seen.add(at);
  }
  return parent === step.id ? null : parent;
}

function narrowest(step, top, inside, placed) {
  let found = top, shortest = Infinity;
  const waiting = [...(inside.get(top) ?? [])].filter(id => placed.has(id));
  while (waiting.length) {
    const other = state.steps.get(waiting.pop());
    if (other.start > step.start || finish(other) < finish(step)) continue;
    waiting.push(...[...(inside.get(other.id) ?? [])].filter(id => placed.has(id)));
    if (finish(other) - other.start <= shortest && !arePeers(step, other)) {
      found = other.id;
      shortest = finish(other) - other.start;
    }
  }
  return found;
}

function arePeers(one, other) {
  const process = step => String(step.attributes?.process ?? "");
  const family = step => process(step).replace(/\d+$/, "");
  return process(one) !== process(other) && family(one) === family(other);
}

const rootStep = () => makeTree().roots[0];
const bounds = () => {
  const all = [...makeTree().roots];
  const start = Math.min(...all.map(step => step.start));
  return { start, end: Math.max(start + 0.001, ...all.map(endOf)) };
};
