// The waterfall: as many rows as can be seen, whatever number there is.

const opened = new Map(); // what the reader of the page has opened or closed, by id
const drawn = new Map(); // the rows on the screen, by id
let listing = [], chosen = null;

const MOST_SEGMENTS = 100; // of a closed node

const BAR = 14, NARROWEST = 8; // pixels: of a bar's height, and of a shadow's width

function isOpen(step) {
  if (opened.has(step.id)) return opened.get(step.id);
  const { nodes, inside } = makeTree();
  if (step.kind === "node") return nodes <= 8 || openNodes.has(step.id);
  return step.kind !== "download" || inside(step).length <= 6;
}

let allCallbacks = false;
const isHidden = step => step.kind === "callback" && !allCallbacks && !isNotable(step);

let states = new Map(), openNodes = new Set(); // of the nodes; those that are opened because they have failed or are stuck

function list() {
  const { roots, inside, nodes } = makeTree(), wanted = byId("filter").value.trim().toLowerCase(), rows = [], waiting = [];
  states = statesOfNodes();
  const troubled = [...states].filter(([id, found]) => state.steps.get(id)?.kind === "node" && (found === "failed" || found === "stuck"));
  openNodes = new Set(troubled.length <= 3 ? troubled.map(([id]) => id) : []);
  const compare = order(), filtered = wanted || wantedState;
  const matches = step => (!wanted || `${fullTitleOf(step)} ${step.node} ${step.attributes?.process ?? ""} ${step.outcome}`.toLowerCase().includes(wanted))
    && (!wantedState || ((nodes <= 1 || step.kind === "node") && stateOf(step, states) === wantedState));
  const add = (steps, depth, shown, outer) => {
    if (steps.length > 1 && steps.some(step => step.kind === "node")) steps = [...steps].sort(compare);
    for (let number = steps.length - 1; number >= 0; number--) if (wanted || !isHidden(steps[number])) waiting.push({ step: steps[number], depth, shown, outer });
  };
  add(roots, 0, false, null);
  while (waiting.length) {
    const { step, depth, shown, outer } = waiting.pop(), row = { step, depth, outer, shown: shown || !filtered || matches(step) };
    rows.push(row);
    if (filtered || isOpen(step)) add(inside(step), depth + 1, filtered && row.shown && depth > 0 && isOpen(step), row);
  }
  if (!filtered) return rows;
  for (const row of rows) if (row.shown) for (let at = row.outer; at && !at.holds; at = at.outer) at.holds = true;
  return rows.filter(row => row.shown || row.holds);
}

function order() {
  const how = byId("sort").value, rank = step => STATES.indexOf(stateOf(step, states));
  if (how === "slowest") return (a, b) => secondsOf(b) - secondsOf(a);
  if (how === "start") return (a, b) => a.start - b.start;
  return (a, b) => rank(a) - rank(b) || a.start - b.start;
}

const rowHeight = () => parseFloat(getComputedStyle(document.documentElement).getPropertyValue("--row"));

// Side by side in time means one above the other on the screen: the line each of `steps` is drawn on, and how many there are.
function lines(steps) {
  const ends = [];
  const of = steps.map(step => {
    let line = ends.findIndex(end => end <= step.start + 0.001);
    if (line < 0) line = ends.push(0) - 1;
    ends[line] = endOf(step);
    return line;
  });
  return { of, count: Math.max(1, ends.length) };
}

function drawWaterfall() {
  const frame = byId("waterfall"), rows = byId("rows"), scaled = scale(), height = rowHeight();
  rows.style.height = `${listing.length * height}px`;
  const first = Math.max(0, Math.floor(frame.scrollTop / height) - 4);
  const last = Math.min(listing.length, Math.ceil((frame.scrollTop + frame.clientHeight) / height) + 4);
  document.documentElement.style.setProperty("--bar", `${frame.offsetWidth - frame.clientWidth}px`);
  const seen = new Set(), width = byId("axis").clientWidth;
  for (let index = first; index < last; index++) seen.add(listing[index].step.id);
  for (const [id, row] of drawn) if (!seen.has(id)) { row.element.remove(); drawn.delete(id); }
  let before = null; // the rows of the document are in the order of the screen, for screen readers
  for (let index = first; index < last; index++) {
    const { step, depth } = listing[index];
    let row = drawn.get(step.id);
    if (!row) drawn.set(step.id, row = makeRow(step));
    if (!row.element.parentNode || row.element.previousElementSibling !== before) before ? before.after(row.element) : rows.prepend(row.element);
    before = row.element;
    drawRow(row, step, depth, index, height, scaled, width);
  }
  frame.setAttribute("aria-rowcount", listing.length);
  frame.setAttribute("aria-activedescendant", drawn.has(chosen) ? `row-${chosen}` : "");
  byId("no-match").hidden = listing.length > 0;
  say(byId("no-match").firstChild, `No step matches ${[byId("filter").value && `“${byId("filter").value}”`, wantedState && `the state “${wantedState}”`].filter(Boolean).join(" and ")}.`);
  drawAxis();
}

function makeRow(step) {
  const mark = make("button", { type: "button", className: "mark", tabIndex: -1 }), label = make("button", { type: "button", className: "label", tabIndex: -1 });
  const bars = make("div", { className: "lane", role: "gridcell" }), took = make("span", { className: "took num" }), usual = make("div", { className: "usual" });
  const name = make("div", { className: "name", role: "rowheader" }, mark, label);
  const element = make("div", { className: "row", id: `row-${step.id}`, role: "row" }, name, bars);
  bars.append(usual, took);
  element.dataset.id = step.id;
  return { element, mark, label, bars, took, usual, pieces: [] };
}

const MARKS = { failed: "✕ ", stuck: "! ", slow: "! " };

function drawRow(row, step, depth, index, height, scaled, width) {
  const { inside } = makeTree(), children = inside(step).filter(each => !isHidden(each)), open = isOpen(step), process = step.attributes?.process, found = stateOf(step, states);
  const outer = open && children.length > 0, percent = share => `${(100 * share).toFixed(3)}%`;
  row.element.style.top = `${index * height}px`;
  row.element.style.setProperty("--depth", depth);
  row.element.className = `row ${found}${index % 2 ? " odd" : ""}${["cluster", "node", "phase"].includes(step.kind) ? " top" : ""}${step.id === chosen ? " chosen" : ""}`;
  row.element.setAttribute("aria-level", depth + 1);
  row.element.setAttribute("aria-rowindex", index + 1);
  row.element.setAttribute("aria-selected", step.id === chosen);
  if (children.length) row.element.setAttribute("aria-expanded", open); else row.element.removeAttribute("aria-expanded");
  row.mark.style.visibility = children.length ? "" : "hidden";
  say(row.mark, open ? "▾" : "▸");
  row.mark.setAttribute("aria-label", open ? "Close" : "Open");
  say(row.label, `${MARKS[found] ?? ""}${fullTitleOf(step)}${process ? ` · ${process}` : ""}`);
  row.label.title = row.label.textContent;
  const segments = step.kind === "node" && !open && !scaled.log ? children.slice(0, MOST_SEGMENTS) : [], pieces = [step, ...segments];
  while (row.pieces.length < pieces.length) { const bar = make("div", { className: "bar" }); row.usual.after(bar); row.pieces.push(bar); }
  while (row.pieces.length > pieces.length) row.pieces.pop().remove();
  const stacked = lines(segments), thick = BAR / stacked.count;
  pieces.forEach((each, number) => {
    const bar = row.pieces[number], begin = scaled.at(each), length = Math.max(0, scaled.at(each, secondsOf(each)) - begin);
    const far = each.total && isRunning(each) ? Math.min(1, each.done / each.total) : null, over = far === null && !outer && each.usual && isSlow(each);
    const usual = over ? (scaled.at(each, each.usual.high) - begin) / (length || 1) : 1;
    bar.className = `bar${isRunning(each) && state.live ? " still" : ""}${far !== null ? " part" : ""}${over ? " over" : ""}${segments.length && !number ? " back" : ""}${outer ? " outer" : ""}${each.outcome === "cancelled" ? " cancelled" : ""}${found === "stuck" && !number && !outer && !segments.length ? " stuck" : ""}`;
    bar.style.setProperty("--hue", colourOf(each));
    bar.style.setProperty("--far", percent(far ?? usual));
    bar.style.left = percent(begin);
    bar.style.width = percent(length);
    bar.style.top = number ? `${(height - BAR) / 2 + stacked.of[number - 1] * thick}px` : "";
    bar.style.height = number ? `${thick}px` : "";
    bar.title = `${titleOf(each)}: ${formatDuration(secondsOf(each))}${each.usual ? `, usually ${formatUsual(each.usual)}` : ""}${hasFailed(each) ? `, ${each.outcome}: ${each.error}` : ""}`;
  });
  row.pieces.forEach((bar, number) => { bar.style.zIndex = number; });
  drawUsual(row.usual, step, scaled, width, percent);
  drawTook(row, step, segments, scaled, width, found);
}

// The shadow of the usual duration, from where the step began.
function drawUsual(shadow, step, scaled, width, percent) {
  const begin = scaled.at(step), reach = seconds => Math.max(0, scaled.at(step, seconds) - begin);
  shadow.hidden = !step.usual || reach(step.usual.high) * width < NARROWEST;
  if (shadow.hidden) return;
  shadow.style.left = percent(begin);
  shadow.style.width = percent(reach(step.usual.high));
  shadow.style.setProperty("--low", percent(reach(step.usual.low) / (reach(step.usual.high) || 1)));
}

function drawTook(row, step, segments, scaled, width, found) {
  const running = segments.filter(isRunning).map(titleOf).join(", "), { usual } = step, seconds = secondsOf(step);
  const unusual = usual && !hasFailed(step) && Math.abs(seconds - usual.seconds) >= RULES.notableSeconds && (found === "slow" || found === "stuck" || (!isRunning(step) && (seconds > usual.high || seconds < usual.low)));
  const texts = [running, isRunning(step) ? ticking(seconds) : formatDuration(seconds), unusual ? `usually ${formatDuration(usual.seconds)}` : "",
    step.done != null && isRunning(step) && step.total ? `${Math.floor(100 * step.done / step.total)} %` : "", hasFailed(step) ? step.outcome.replace("_", " ") : ""];
  const begins = scaled.at(step), ends = scaled.at(step, Math.max(seconds, usual?.high ?? 0)), outside = ends < 0 || begins > 1;
  const placed = count => { const room = width ? (count * 7 + 14) / width : 0.2; return ends + room < 1 ? "" : begins > room ? "left" : "in"; };
  const whole = texts.filter(Boolean).join(" · "), short = texts.slice(0, -1).filter(Boolean).join(" · ");
  const text = placed(whole.length) === "in" ? short : whole, place = placed(text.length); // the name has the mark of a failure
  say(row.took, text);
  row.took.hidden = outside;
  row.took.className = `took num ${place}`;
  row.took.style.left = `${100 * (place === "in" ? Math.min(1, ends) : place === "left" ? begins : ends)}%`;
  row.took.style.zIndex = segments.length + 1;
}

function choose(id, show = true) {
  chosen = id;
  const { outer } = makeTree();
  for (let at = outer.get(id); at; at = outer.get(at)) if (!isOpen(state.steps.get(at))) opened.set(at, true);
  listing = list();
  const index = listing.findIndex(each => each.step.id === id), frame = byId("waterfall"), height = rowHeight();
  if (show && index >= 0) {
    if (index * height < frame.scrollTop) frame.scrollTop = index * height;
    if ((index + 1) * height > frame.scrollTop + frame.clientHeight) frame.scrollTop = (index + 1) * height - frame.clientHeight;
  }
  draw();
}
