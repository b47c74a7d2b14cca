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
  if (!same) { opened.clear(); resetView(); }
  state.about = about;
  state.steps = new Map(about.steps.map(step => [step.id, step]));
  settle(about.now);
  return same;
}

function takeChange({ steps, removed, ...about }) {
  for (const step of steps) state.steps.set(step.id, step);
  for (const id of removed) state.steps.delete(id);
  Object.assign(state.about, about);
  settle(about.now);
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
  const running = [], outerOfRunning = new Set();
  for (const step of state.steps.values()) {
    outer.set(step.id, firstThatStillRan(step));
    if (step.kind === "node") nodes++;
    if (isRunning(step)) { running.push(step); outerOfRunning.add(step.parent); }
  }
  placeByTime(outer);
  for (const step of [...state.steps.values()].sort(byStart)) {
    const parent = outer.get(step.id);
    if (parent === null) roots.push(step);
    else if (inside.has(parent)) inside.get(parent).push(step);
    else inside.set(parent, [step]);
  }
  tree = { roots, outer, nodes, running, inside: step => inside.get(step.id) ?? NONE };
  tree.leaves = running.filter(step => !outerOfRunning.has(step.id)); // they are what runs; the others contain them
  tree.causes = causes(tree);
  tree.stuck = new Map((state.about.stuck ?? []).map(each => [each.step, each]));
  return tree;
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

// The outermost step; a restart of the engine that has not succeeded comes before the start that did.
function rootStep() {
  const { roots } = makeTree();
  return roots.findLast(step => step.kind === "engine_restart" && step.outcome !== "finished") ?? roots[0];
}

function nodeOf(step) {
  const { outer } = makeTree();
  let at = step;
  for (let walked = 0; at && at.kind !== "node" && walked < MOST_ANCESTORS; walked++) at = state.steps.get(outer.get(at.id));
  return at?.kind === "node" ? at : null;
}

// From the first step to the last one; while it starts, to when it is expected to be ready.
const bounds = () => {
  let start = Infinity, end = -Infinity;
  for (const root of makeTree().roots) { start = Math.min(start, root.start); end = Math.max(end, endOf(root)); }
  const expected = isRunning(rootStep()) && state.live ? now() + (remaining()?.seconds ?? 0) : end;
  return { start, end: Math.max(start + 0.001, end, expected) };
};
