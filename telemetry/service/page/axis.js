// The part of the time that is shown, and where a moment or a duration is drawn.

const view = { from: null, to: null, log: false }; // seconds since the epoch; null: everything
const SHORTEST = 0.001; // seconds: where the logarithmic scale begins, and the narrowest view

function resetView() { view.from = view.to = null; }

// Where things are drawn: `at` is the share of the width of a step's start, or of `seconds` after it.
function scale() {
  const whole = bounds();
  if (view.log) {
    const longest = Math.max(1, whole.end - whole.start), decades = Math.log10(longest / SHORTEST);
    return { log: true, longest, at: (_, seconds = 0) => seconds <= SHORTEST ? 0 : Math.log10(seconds / SHORTEST) / decades };
  }
  const start = view.from ?? whole.start, end = view.to ?? whole.end;
  return { log: false, start, end, origin: whole.start, at: (step, seconds = 0) => (step.start + seconds - start) / (end - start) };
}

// Show `factor` times as much time, so that the moment at the share `around` of the width stays in its place.
function zoom(factor, around = 0.5) {
  if (view.log) return;
  const whole = bounds(), { start, end } = scale(), length = Math.max(SHORTEST, (end - start) * factor);
  const from = start + (end - start) * around - length * around;
  show(from, from + length, whole);
}

function show(from, to, whole = bounds()) {
  if (to - from >= whole.end - whole.start) resetView();
  else {
    view.from = Math.min(Math.max(from, whole.start), whole.end - (to - from));
    view.to = view.from + (to - from);
  }
  draw();
}

function pan(share) {
  const { start, end, log } = scale();
  if (!log && view.from !== null) show(start + (end - start) * share, end + (end - start) * share);
}

function zoomTo(step) {
  if (!step) return;
  if (view.log) setLog(false);
  const margin = Math.max(SHORTEST, secondsOf(step)) * 0.15;
  show(step.start - margin, endOf(step) + margin);
}

function setLog(log) {
  view.log = log;
  byId("log").setAttribute("aria-pressed", log);
  document.querySelector("main").classList.toggle("log", log);
  byId("linear").setAttribute("aria-pressed", !log);
  draw();
}

const clock = (seconds, digits = 0) => {
  const date = new Date(seconds * 1000), two = number => String(number).padStart(2, "0");
  const fraction = digits ? `.${String(date.getMilliseconds()).padStart(3, "0").slice(0, digits)}` : "";
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}${fraction}`;
};

// The marks: the time since the start, and below it the time of day.
function drawAxis() {
  const { log, start, end, origin, longest } = scale(), marks = [], narrow = byId("axis").clientWidth < 420;
  if (log) {
    for (const seconds of [0.001, 0.01, 0.1, 1, 10, 60, 600, 3600]) if (seconds < longest) marks.push([scale().at(null, seconds), formatDuration(seconds), ""]);
  } else {
    const rough = (end - start) / (narrow ? 3 : 8), power = 10 ** Math.floor(Math.log10(rough));
    const step = rough > 6 ? [10, 15, 30, 60, 120, 300, 600, 1800, 3600].find(each => each >= rough) ?? power * 10
      : [1, 2, 5, 10].map(each => each * power).find(each => each >= rough);
    for (let at = Math.ceil((start - origin) / step - 1e-9) * step; at < end - origin; at += step) {
      const share = (origin + at - start) / (end - start);
      if (share <= 0.97) marks.push([share, at > step / 2 ? formatDuration(+at.toFixed(6)).replace(/\.0+ s$/, " s") : "0", narrow && step < 1 && marks.length ? "" : clock(origin + at, step < 1 ? 3 : 0)]);
    }
  }
  const running = !log && state.live && isRunning(rootStep()) ? (now() - start) / (end - start) : -1;
  byId("rows").style.setProperty("--now", running > 0 && running < 1 ? running : -1);
  const known = JSON.stringify(marks);
  if (byId("axis").dataset.known === known) return;
  byId("axis").dataset.known = known;
  byId("axis").replaceChildren(...marks.map(([at, text, time]) => {
    const mark = make("span", { className: at < 0.02 ? "first" : "" }, text, make("small", {}, time));
    mark.style.left = `${100 * at}%`;
    return mark;
  }));
}
