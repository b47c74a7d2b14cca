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
  update();
  drawnUntil = performance.now();
  drawingTook = drawnUntil - began;
}

// Draw what changes with time alone.
function update() {
  if (!state.steps.size) { drawHead(); drawRunning(); return; }
  drawHead(); drawErrors(); drawRunning(); drawProgress(); drawCallbacks(); drawWaterfall();
  if (!byId("details").hidden && !isRunning(state.steps.get(chosen) ?? { outcome: "" })) return;
  if (!byId("details").hidden) details();
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
    if (!takeState(JSON.parse(event.data))) { chosen = null; byId("details").hidden = true; }
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
    notice("The process has ended. This is how it stood.");
  });
  source.onopen = () => { state.live = true; state.frozen = null; notice(null); };
  source.onerror = () => {
    if (state.live) notice("The connection is lost; trying again …");
    freeze();
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
  ArrowRight: () => open(true), ArrowLeft: () => open(false), Enter: () => details(), f: () => jump(step => hasFailed(step)),
  r: () => jump(step => isRunning(step) && !makeTree().inside(step).some(isRunning)), "/": () => byId("filter").focus(),
  t: toggleTheme, "?": () => byId("keys").showModal(), Escape: () => { byId("details").hidden = true; },
};

document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || byId("keys").open) return;
  if (event.target.matches("input, select")) {
    if (event.key === "Escape") { byId("filter").value = ""; byId("waterfall").focus(); draw(); }
    return;
  }
  if (event.key === "Enter" && event.target.matches("button, a")) return;
  if (keys[event.key]) { event.preventDefault(); keys[event.key](); }
});

byId("rows").addEventListener("click", event => {
  const id = event.target.closest(".row")?.dataset.id;
  if (!id) return;
  if (event.target.closest(".mark") || (chosen === id && event.target.closest(".name"))) opened.set(id, !isOpen(state.steps.get(id)));
  choose(id, false);
  if (event.target.closest(".lane")) details(); else if (!byId("details").hidden) details();
});
byId("waterfall").addEventListener("scroll", () => drawWaterfall());
byId("filter").addEventListener("input", () => { byId("waterfall").scrollTop = 0; draw(); });
byId("sort").addEventListener("change", draw);
byId("expand").onclick = () => { for (const step of state.steps.values()) opened.set(step.id, true); draw(); };
byId("collapse").onclick = () => { for (const step of state.steps.values()) opened.set(step.id, step.kind === "cluster"); draw(); };
byId("theme").onclick = toggleTheme;
byId("help").onclick = keys["?"];
addEventListener("resize", draw);

try { document.documentElement.dataset.theme = localStorage.getItem("phasebus-theme") ?? ""; } catch { /* as the system has it */ }
const embedded = byId("embedded").textContent.trim();
if (embedded) { takeState(JSON.parse(embedded)); draw(); } else connect();
setInterval(() => {
  if (!state.live || document.hidden || performance.now() < drawnUntil + 2 * drawingTook) return;
  for (const step of state.steps.values()) if (isRunning(step)) { update(); return; }
}, 200);
