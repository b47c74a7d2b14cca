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
  for (const id of change.removed) state.steps.delete(id);
  state.about.left_out = change.left_out;
  settle(change.now);
}

function settle(serverNow) {
  state.offset = serverNow - Date.now() / 1000;
  state.frozen = state.live ? null : serverNow;
  tree = null;
}

// A step lies inside its parent; the steps of an engine lie inside the shortest one that contains them, as in reports
// (telemetry/analysis/nesting.py). Nothing here recurses or compares all steps with all others.
function makeTree() {
  if (tree) return tree;
  const outer = new Map(), inside = new Map(), roots = [];
  let nodes = 0;
  for (const step of state.steps.values()) {
    outer.set(step.id, firstThatStillRan(step));
    if (step.kind === "node") nodes++;
  }
  placeByTime(outer);
  for (const step of [...state.steps.values()].sort(byStart)) {
    const parent = outer.get(step.id);
    if (parent === null) roots.push(step);
    else if (inside.has(parent)) inside.get(parent).push(step);
    else inside.set(parent, [step]);
  }
  return tree = { roots, outer, nodes, inside: step => inside.get(step.id) ?? NONE };
}

const NONE = [];
const MOST_ANCESTORS = 64, MOST_CANDIDATES = 256; // how many steps are considered as the place of another one

const byStart = (a, b) => a.start - b.start || (finish(b) > finish(a)) - (finish(b) < finish(a));
const knownParent = step => state.steps.has(step.parent) && step.parent !== step.id ? step.parent : null;

function firstThatStillRan(step) {
  const parent = knownParent(step);
  let at = parent;
  for (let walked = 0; at !== null && at !== step.id && walked < MOST_ANCESTORS; walked++) {
    const other = state.steps.get(at);
    if (isRunning(other) || other.end > step.start || other.end === step.end) return at;
    at = knownParent(other);
  }
  return parent;
}

function placeByTime(outer) {
  const ancestors = new Map(outer), placed = new Map();
  let active = [], most = 1000; // the placed steps, in the order of their start; ended ones are dropped now and then
  for (const step of [...state.steps.values()].filter(step => step.kind === "engine_step").sort(byStart)) {
    let place = null;
    for (let number = active.length - 1, last = Math.max(0, active.length - MOST_CANDIDATES); number >= last; number--) {
      const other = active[number], longer = place && finish(other) - other.start >= finish(place) - place.start;
      if (finish(other) < finish(step) || longer || arePeers(step, other) || !isBelow(other, ancestors.get(step.id), step, ancestors, placed)) continue;
      place = other; // of two that are equally short, the last one lies inside the other
    }
    if (place) outer.set(step.id, place.id);
    placed.set(step.id, step);
    active.push(step);
    if (active.length > most) {
      active = active.filter(each => finish(each) >= step.start);
      most = 2 * active.length + 1000;
    }
  }
}

// Whether a step lies below `top`, by way of steps that all contain `step`.
function isBelow(other, top, step, ancestors, placed) {
  let at = ancestors.get(other.id);
  for (let walked = 0; walked < MOST_ANCESTORS; walked++) {
    if (at === top) return true;
    if (at === null || !placed.has(at) || finish(placed.get(at)) < finish(step)) return false;
    at = ancestors.get(at);
  }
  return false;
}

function arePeers(one, other) {
  const process = step => String(step.attributes?.process ?? "");
  const family = step => process(step).replace(/\d+$/, "");
  return process(one) !== process(other) && family(one) === family(other);
}

const rootStep = () => makeTree().roots[0];
const bounds = () => {
  let start = Infinity, end = -Infinity;
  for (const root of makeTree().roots) { start = Math.min(start, root.start); end = Math.max(end, endOf(root)); }
  return { start, end: Math.max(start + 0.001, end) };
};
