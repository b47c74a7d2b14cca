// Events from the server and from the user.

let planned = null, drawnUntil = 0, drawingTook = 0; // milliseconds

// Draw soon, and for a third of the time at most, however many changes arrive.
function drawSoon() {
  planned ??= setTimeout(draw, Math.max(0, drawnUntil + 2 * drawingTook - performance.now()));
}

function draw() {
  const began = performance.now();
  clearTimeout(planned);
  planned = null;
  listing = state.steps.size ? list() : [];
  if (showProblem()) return;
  if (state.steps.size) { drawMap(states); drawStates(states); drawLegend(); drawControls(); drawCallbacks(); }
  update();
  drawnUntil = performance.now();
  drawingTook = drawnUntil - began;
}

// Choose the step that failed or is stuck, once, unless the reader has chosen another one; return whether that has drawn.
let problem = null;

function showProblem() {
  const { state: found, step } = state.steps.size ? verdict() : {};
  if (!step || !["failed", "stuck"].includes(found) || step.id === problem) return false;
  const free = chosen === null || chosen === problem;
  problem = step.id;
  if (free) choose(step.id);
  return free;
}

// Draw what changes with time alone.
function update() {
  drawHead();
  if (!state.steps.size) return;
  drawRunning(); drawWaterfall();
  if (!byId("details").hidden) details();
}

function drawControls() {
  const hidden = [...state.steps.values()].filter(step => step.kind === "callback" && !isNotable(step)).length, { left_out: left } = state.about;
  byId("all-callbacks").hidden = !hidden;
  say(byId("all-callbacks"), `Show ${hidden} ${hidden === 1 ? "callback" : "callbacks"} without effect`);
  byId("all-callbacks").setAttribute("aria-pressed", allCallbacks);
  byId("sort").hidden = makeTree().nodes <= 1;
  for (const name of ["zoom-in", "zoom-out", "fit"]) byId(name).disabled = view.log || (name !== "zoom-in" && view.from === null);
  say(byId("footnote"), `${state.steps.size} steps${left ? `. ${left} more steps began than are kept.` : ""}`);
}

function notice(text) {
  byId("notice").hidden = !text;
  say(byId("notice"), text ?? "");
}

let source = null;

function connect() {
  source = new EventSource("events");
  source.addEventListener("state", event => {
    state.live = true;
    if (!takeState(JSON.parse(event.data))) { chosen = null; closeDetails(); }
    notice(null);
    drawSoon();
  });
  source.addEventListener("change", event => {
    state.live = true;
    takeChange(JSON.parse(event.data));
    notice(null);
    drawSoon();
  });
  source.addEventListener("closed", event => {
    freeze();
    notice("The process that served this page has ended. This is its last state.");
  });
  source.onopen = () => { state.live = true; state.frozen = null; notice(null); };
  source.onerror = () => {
    if (state.live) notice("The connection is lost. This is the last known state; the page reconnects by itself.");
    freeze();
    drawSoon();
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, 2000);
  };
}

function freeze() {
  if (!state.live) return;
  state.frozen = now();
  state.live = false;
  draw();
}

function move(by) {
  const at = listing.findIndex(each => each.step.id === chosen);
  const next = listing[Math.max(0, Math.min(listing.length - 1, at < 0 && Math.abs(by) < 1e8 ? 0 : at + by))];
  if (next) choose(next.step.id);
  if (!byId("details").hidden) details();
}

function jump(wanted) {
  const { roots, inside } = makeTree(), all = [], waiting = [...roots].reverse();
  while (waiting.length) {
    const step = waiting.pop();
    if (wanted(step)) all.push(step);
    for (let number = inside(step).length - 1; number >= 0; number--) waiting.push(inside(step)[number]);
  }
  const at = all.findIndex(step => step.id === chosen);
  if (all.length) choose(all[(at + 1) % all.length].id);
  if (!byId("details").hidden) details();
}

function open(wanted) {
  const step = state.steps.get(chosen);
  if (!step) return;
  if (!wanted && (!isOpen(step) || !makeTree().inside(step).length)) { const outer = makeTree().outer.get(chosen); if (outer) choose(outer); return; }
  if (wanted && isOpen(step)) { move(1); return; }
  opened.set(chosen, wanted);
  draw();
}

function toggleTheme() {
  const dark = document.documentElement.dataset.theme ? document.documentElement.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = dark ? "light" : "dark";
  try { localStorage.setItem("phasebus-theme", document.documentElement.dataset.theme); } catch { /* not kept, then */ }
}

const keys = {
  ArrowDown: () => move(1), ArrowUp: () => move(-1), PageDown: () => move(12), PageUp: () => move(-12), Home: () => move(-1e9), End: () => move(1e9),
  ArrowRight: () => open(true), ArrowLeft: () => open(false), Enter: () => details(true), f: () => jump(step => ["failed", "stuck", "slow"].includes(stateOf(step, states))),
  r: () => jump(step => isRunning(step) && !makeTree().inside(step).some(isRunning)), "/": () => byId("filter").focus(),
  "+": () => zoom(0.5), "=": () => zoom(0.5), "-": () => zoom(2), 0: () => { resetView(); draw(); }, z: () => zoomTo(state.steps.get(chosen)), l: () => setLog(!view.log),
  t: toggleTheme, "?": () => byId("keys").showModal(), Escape: () => { if (!byId("details").hidden) { closeDetails(); byId("waterfall").focus(); } },
};

document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || byId("keys").open) return;
  if (event.target.matches("input, select")) {
    if (event.key === "Escape") { byId("filter").value = ""; byId("waterfall").focus(); draw(); }
    return;
  }
  if (event.target.closest("#map") && event.key.startsWith("Arrow")) { moveInMap(event); return; }
  if (["Enter", " "].includes(event.key) && event.target.matches("button, a, summary")) return;
  if (event.shiftKey && ["ArrowLeft", "ArrowRight"].includes(event.key)) { pan(event.key === "ArrowLeft" ? -0.2 : 0.2); event.preventDefault(); return; }
  if (keys[event.key]) { event.preventDefault(); keys[event.key](); }
});

// The squares are one stop of the tab key; the arrow keys move between them.
function moveInMap(event) {
  const squares = [...byId("map").children], across = squares.findIndex(square => square.offsetTop !== squares[0].offsetTop);
  const by = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: across < 0 ? 0 : across, ArrowUp: across < 0 ? 0 : -across }[event.key];
  const next = squares[squares.indexOf(event.target) + by];
  event.preventDefault();
  if (!next) return;
  event.target.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
}

byId("map").addEventListener("click", event => look(event.target.dataset.id));
byId("look").onclick = event => look(event.currentTarget.dataset.id);
byId("rows").addEventListener("click", event => {
  const id = event.target.closest(".row")?.dataset.id;
  if (!id || dragged) return;
  if (event.target.closest(".mark")) opened.set(id, !isOpen(state.steps.get(id)));
  choose(id, false);
  if (event.target.closest(".label") || !byId("details").hidden) details();
  if (event.target.closest("button")) byId("waterfall").focus();
});

// Zoom with the wheel and a modifier key, as elsewhere on the web; drag to move what is shown.
byId("rows").addEventListener("wheel", event => {
  if (!event.ctrlKey && !event.metaKey) return;
  event.preventDefault();
  const lane = byId("axis").getBoundingClientRect();
  zoom(Math.exp(event.deltaY / 300), Math.min(1, Math.max(0, (event.clientX - lane.left) / lane.width)));
}, { passive: false });

let drag = null, dragged = false;

byId("rows").addEventListener("pointerdown", event => {
  dragged = false;
  if (event.button === 0 && event.target.closest(".lane") && view.from !== null && event.pointerType !== "touch") drag = { x: event.clientX };
});
addEventListener("pointermove", event => {
  if (!drag || Math.abs(event.clientX - drag.x) < 3) return;
  dragged = true;
  pan((drag.x - event.clientX) / byId("axis").clientWidth);
  drag.x = event.clientX;
});
addEventListener("pointerup", () => { drag = null; });

// Two fingers zoom, one finger moves what is shown; up and down it scrolls, which the browser does (`touch-action`).
const fingers = new Map(); // by pointer: where it is, in pixels

byId("rows").addEventListener("pointerdown", event => {
  if (event.pointerType === "touch" && event.target.closest(".lane")) fingers.set(event.pointerId, event.clientX);
});
addEventListener("pointermove", event => {
  if (!fingers.has(event.pointerId)) return;
  const span = () => { const at = [...fingers.values()]; return { from: Math.min(...at), to: Math.max(...at) }; };
  const was = span(), lane = byId("axis").getBoundingClientRect();
  fingers.set(event.pointerId, event.clientX);
  const is = span(), middle = (is.from + is.to) / 2;
  if (fingers.size === 2 && was.to > was.from && is.to > is.from) zoom((was.to - was.from) / (is.to - is.from), Math.min(1, Math.max(0, (middle - lane.left) / lane.width)));
  pan(((was.from + was.to) / 2 - middle) / lane.width);
});
for (const ended of ["pointerup", "pointercancel"]) addEventListener(ended, event => fingers.delete(event.pointerId));

byId("waterfall").addEventListener("scroll", () => drawWaterfall());
byId("filter").addEventListener("input", () => { byId("waterfall").scrollTop = 0; draw(); });
byId("sort").addEventListener("change", draw);
byId("log").onclick = () => setLog(true);
byId("linear").onclick = () => setLog(false);
byId("zoom-in").onclick = () => zoom(0.5);
byId("zoom-out").onclick = () => zoom(2);
byId("fit").onclick = () => { resetView(); draw(); };
byId("all-callbacks").onclick = () => { allCallbacks = !allCallbacks; draw(); };
byId("no-match").lastChild.onclick = () => { byId("filter").value = ""; wantedState = null; draw(); };
byId("expand").onclick = () => { for (const step of state.steps.values()) opened.set(step.id, true); draw(); };
byId("collapse").onclick = () => { for (const step of state.steps.values()) opened.set(step.id, step.kind === "cluster"); draw(); };
byId("theme").onclick = toggleTheme;
byId("help").onclick = keys["?"];
addEventListener("resize", draw);

try { document.documentElement.dataset.theme = localStorage.getItem("phasebus-theme") ?? ""; } catch { /* as the system has it */ }
const embedded = byId("embedded").textContent.trim();
if (embedded) { takeState(JSON.parse(embedded)); draw(); } else { drawHead(); connect(); }
setInterval(() => {
  if (!state.live || document.hidden || performance.now() < drawnUntil + 2 * drawingTook) return;
  for (const step of state.steps.values()) if (isRunning(step)) { update(); return; }
}, 200);
