// The waterfall: as many rows as can be seen, whatever number there is.

const opened = new Map(); // what a person has opened or closed, by id
const drawn = new Map(); // the rows on the screen, by id
let listing = [], chosen = null;

const MOST_SEGMENTS = 100; // of a closed node

function isOpen(step) {
  if (opened.has(step.id)) return opened.get(step.id);
  const { nodes, inside } = makeTree();
  if (step.kind === "node") return nodes <= 8;
  return step.kind !== "download" || inside(step).length <= 6;
}

function list() {
  const { roots, inside } = makeTree(), wanted = byId("filter").value.trim().toLowerCase(), rows = [], waiting = [];
  const compare = order(), matches = step => `${titleOf(step)} ${step.node} ${step.attributes?.process ?? ""} ${step.outcome}`.toLowerCase().includes(wanted);
  const add = (steps, depth, shown, outer) => {
    if (steps.length > 1 && steps.some(step => step.kind === "node")) steps = [...steps].sort(compare);
    for (let number = steps.length - 1; number >= 0; number--) waiting.push({ step: steps[number], depth, shown, outer });
  };
  add(roots, 0, false, null);
  while (waiting.length) {
    const { step, depth, shown, outer } = waiting.pop(), row = { step, depth, outer, shown: shown || !wanted || matches(step) };
    rows.push(row);
    if (wanted || isOpen(step)) add(inside(step), depth + 1, wanted && row.shown && depth > 0 && isOpen(step), row);
  }
  if (!wanted) return rows;
  for (const row of rows) if (row.shown) for (let at = row.outer; at && !at.holds; at = at.outer) at.holds = true;
  return rows.filter(row => row.shown || row.holds);
}

function order() {
  const how = byId("sort").value;
  if (how === "slowest") return (a, b) => secondsOf(b) - secondsOf(a);
  if (how !== "failed") return (a, b) => a.start - b.start;
  const { outer } = makeTree(), failed = new Set(); // with the steps that they lie inside of
  for (const step of state.steps.values()) if (hasFailed(step)) for (let at = step.id; at && !failed.has(at); at = outer.get(at)) failed.add(at);
  return (a, b) => failed.has(b.id) - failed.has(a.id) || a.start - b.start;
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
  const frame = byId("waterfall"), rows = byId("rows"), { start, end } = bounds(), whole = end - start;
  const height = rowHeight();
  rows.style.height = `${listing.length * height}px`;
  const first = Math.max(0, Math.floor(frame.scrollTop / height) - 4);
  const last = Math.min(listing.length, Math.ceil((frame.scrollTop + frame.clientHeight) / height) + 4);
  const seen = new Set();
  for (let index = first; index < last; index++) {
    const { step, depth } = listing[index];
    seen.add(step.id);
    let row = drawn.get(step.id);
    if (!row) { drawn.set(step.id, row = makeRow(step)); rows.append(row.element); }
    drawRow(row, step, depth, index * height, start, whole);
  }
  for (const [id, row] of drawn) if (!seen.has(id)) { row.element.remove(); drawn.delete(id); }
  frame.setAttribute("aria-rowcount", listing.length);
  frame.setAttribute("aria-activedescendant", chosen ? `row-${chosen}` : "");
  drawAxis(whole);
}

function makeRow(step) {
  const mark = make("span", { className: "mark" }), label = make("span"), bars = make("div", { className: "lane" }), took = make("span", { className: "took num" });
  const element = make("div", { className: "row", id: `row-${step.id}` }, make("div", { className: "name" }, mark, label), bars);
  element.setAttribute("role", "row");
  element.firstChild.setAttribute("role", "rowheader");
  bars.setAttribute("role", "gridcell");
  bars.append(took);
  element.dataset.id = step.id;
  return { element, mark, label, bars, took, pieces: [] };
}

function drawRow(row, step, depth, top, start, whole) {
  const { inside } = makeTree(), children = inside(step), open = isOpen(step), process = step.attributes?.process;
  row.element.style.top = `${top}px`;
  row.element.style.setProperty("--depth", depth);
  row.element.className = `row${(top / rowHeight()) % 2 ? " odd" : ""}${["cluster", "node", "phase"].includes(step.kind) ? " top" : ""}${hasFailed(step) ? " bad" : ""}${step.id === chosen ? " chosen" : ""}`;
  row.element.setAttribute("aria-level", depth + 1);
  row.element.setAttribute("aria-selected", step.id === chosen);
  if (children.length) row.element.setAttribute("aria-expanded", open); else row.element.removeAttribute("aria-expanded");
  say(row.mark, children.length ? (open ? "▼" : "▶") : "");
  say(row.label, process ? `${titleOf(step)} · ${process}` : titleOf(step));
  row.label.title = row.label.textContent;
  const segments = step.kind === "node" && !open ? children.slice(0, MOST_SEGMENTS) : [];
  const pieces = [step, ...segments];
  while (row.pieces.length < pieces.length) { const bar = make("div", { className: "bar" }); row.bars.prepend(bar); row.pieces.push(bar); }
  while (row.pieces.length > pieces.length) row.pieces.pop().remove();
  const at = moment => `${(100 * (moment - start) / whole).toFixed(3)}%`;
  const stacked = lines(segments), thick = 14 / stacked.count;
  pieces.forEach((each, number) => {
    const bar = row.pieces[number], far = each.total && isRunning(each) ? Math.min(100, 100 * each.done / each.total) : null;
    bar.className = `bar${isRunning(each) && state.live ? " still" : ""}${hasFailed(each) ? " bad" : ""}${far !== null ? " part" : ""}${segments.length && !number ? " back" : ""}`;
    bar.style.setProperty("--kind", number && !hasFailed(each) ? SHADES[number % SHADES.length] : colourOf(each));
    bar.style.setProperty("--far", `${far ?? 100}%`);
    bar.style.left = at(each.start);
    bar.style.width = at(start + secondsOf(each));
    bar.style.top = number ? `${(rowHeight() - 14) / 2 + stacked.of[number - 1] * thick}px` : "";
    bar.style.height = number ? `${thick}px` : "";
    bar.title = `${titleOf(each)}: ${formatDuration(secondsOf(each))}${hasFailed(each) ? `, ${each.outcome}: ${each.error}` : ""}`;
  });
  row.pieces.forEach((bar, number) => { bar.style.zIndex = number; });
  const running = segments.filter(isRunning).map(titleOf).join(", ");
  say(row.took, `${running ? `${running} · ` : ""}${isRunning(step) ? ticking(secondsOf(step)) : formatDuration(secondsOf(step))}${step.done != null && isRunning(step) && step.total ? ` · ${Math.floor(100 * step.done / step.total)} %` : ""}${hasFailed(step) ? ` · ${step.outcome}` : ""}`);
  const begins = (step.start - start) / whole, ends = (endOf(step) - start) / whole;
  const room = row.bars.clientWidth ? (row.took.textContent.length * 7 + 14) / row.bars.clientWidth : 0.2;
  row.took.className = `took num${ends + room < 1 ? "" : begins > room ? " left" : " in"}`;
  row.took.style.left = ends + room < 1 || begins <= room ? `${100 * ends}%` : `${100 * begins}%`;
  row.took.style.zIndex = pieces.length;
}

const SHADES = ["var(--callback)", "var(--phase)", "var(--download)", "var(--ray)", "var(--engine_step)", "var(--engine)"];

function drawAxis(whole) {
  const wanted = byId("axis").clientWidth < 420 ? 3 : 8, rough = whole / wanted, scale = 10 ** Math.floor(Math.log10(rough));
  const step = rough > 6 ? [10, 15, 30, 60, 120, 300, 600, 1800, 3600].find(each => each >= rough) ?? scale * 10
    : [1, 2, 5, 10].map(each => each * scale).find(each => each >= rough);
  const marks = [];
  for (let at = 0; at < whole * 0.97; at += step) marks.push([at / whole, at ? formatDuration(+at.toFixed(6)).replace(/\.0+ s$/, " s") : "0"]);
  const said = JSON.stringify(marks);
  if (byId("axis").dataset.said === said) return;
  byId("axis").dataset.said = said;
  byId("axis").replaceChildren(...marks.map(([at, text]) => {
    const mark = make("span", {}, text);
    mark.style.left = `calc((100% - 14px) * ${at})`;
    return mark;
  }));
}

function choose(id, show = true) {
  chosen = id;
  const { outer } = makeTree();
  for (let at = outer.get(id); at; at = outer.get(at)) if (!isOpen(state.steps.get(at))) opened.set(at, true);
  listing = list();
  const index = listing.findIndex(each => each.step.id === id), frame = byId("waterfall");
  const height = rowHeight();
  if (show && index >= 0) {
    if (index * height < frame.scrollTop) frame.scrollTop = index * height;
    if ((index + 1) * height > frame.scrollTop + frame.clientHeight) frame.scrollTop = (index + 1) * height - frame.clientHeight;
  }
  draw();
}
