// The answers at the top, and the steps behind them: what runs, what callbacks changed, and how each node is.

const ICONS = { waiting: "…", starting: "▶", slow: "!", stuck: "!", failed: "✕", cancelled: "–", ready: "✓", unknown: "?" };

function drawHead() {
  const { about } = state, root = rootStep(), found = verdict(), { nodes } = makeTree();
  const model = String(root?.attributes?.model ?? "").replace(/\/+$/, "").split("/").pop();
  say(byId("subject"), [nodes > 1 ? `${nodes} nodes` : root?.node || about.node || "phasebus", model].filter(Boolean).join(" · "));
  say(byId("about"), about.run ? `run ${about.run} · trace ${about.trace} · phasebus ${about.phasebus}` : "");
  byId("headline").className = found.state;
  say(byId("icon"), ICONS[found.state] ?? "");
  say(byId("status"), found.words);
  document.title = `${found.words}${found.step ? `: ${titleOf(found.step)}` : ""} · ${byId("subject").textContent} · phasebus`;
  drawTools(root);
  byId("empty").hidden = Boolean(root);
  byId("content").hidden = !root;
  if (root) { drawDoing(root); drawNormal(root, found); drawAdvice(root, found); drawWhole(root); } else drawEmpty();
  announce(found);
}

function drawTools(root) {
  const url = root && traceUrl(root.id), exports = state.about.exports ?? [];
  byId("trace").hidden = !url;
  if (url) byId("trace").href = url;
  for (const name of ["perfetto", "journal"]) byId(name).hidden = !exports.includes(name);
}

function drawEmpty() {
  say(byId("doing"), ""); say(byId("left"), ""); say(byId("normal"), ""); say(byId("advice"), ""); say(byId("reason"), ""); say(byId("following"), "");
  byId("look").hidden = byId("whole").hidden = true;
  say(byId("empty-reason"), state.live ? "phasebus serves this page before the first phase starts. Steps appear here as they start; no reload is needed. If none appears for a minute, look at the output of the process that serves this page."
    : "There is no connection to the process that serves this page. It is tried again every two seconds.");
}

function drawDoing(root) {
  const ready = [...makeTree().inside(root), root].filter(step => step.kind === "node" && step.outcome === "finished").length, { nodes } = makeTree();
  const time = isRunning(root) ? `${ticking(secondsOf(root))} since ${clock(root.start)}` : `after ${formatDuration(secondsOf(root))}, at ${clock(root.end)}`;
  say(byId("doing"), `${nodes > 1 ? `${ready} of ${nodes} nodes ready, ` : ""}${time}`);
}

function drawNormal(root, { state: found, step, stuck }) {
  const left = remaining(), big = byId("left"), small = byId("normal"), { causes } = makeTree(), usual = root.usual;
  const runs = left && `${left.runs} ${left.runs === 1 ? "run" : "runs"} of ${left.basis === "same" ? "this configuration" : "similar configurations"}`;
  big.classList.remove("unsure");
  if (found === "failed" || found === "cancelled") {
    const cancelled = causes.filter(cause => cause.outcome === "cancelled").length, failed = causes.length - cancelled;
    say(big, failed ? `No: ${failed} ${failed === 1 ? "step" : "steps"} failed` : "No");
    const going = isRunning(root) && makeTree().nodes > 1 ? [...state.steps.values()].filter(each => each.kind === "node" && isRunning(each)).length : 0;
    say(small, [cancelled ? `${cancelled} ${cancelled === 1 ? "step was" : "steps were"} cancelled` : "", going ? `${going} ${going === 1 ? "node" : "nodes"} still starting` : ""].filter(Boolean).join(", "));
  } else if (found === "stuck") {
    const seconds = step ? secondsOf(step) : stuck.running_seconds, usually = step?.usual?.seconds ?? stuck.usual_seconds;
    say(big, usually ? `No: ${digits(seconds / usually, 2)} times the usual` : "No: no progress");
    say(small, step ? durationOf(step, `${ticking(seconds)} so far`) : `${ticking(seconds)} so far`);
  } else if (found === "ready") {
    const how = !usual ? "" : secondsOf(root) > usual.high ? "Longer than usual" : secondsOf(root) < usual.low ? "Shorter than usual" : "As usual";
    say(big, how || "No usual time known");
    big.classList.toggle("unsure", !how);
    say(small, usual ? `${formatDuration(secondsOf(root))}; usually ${formatUsual(usual)}` : "No earlier start of this configuration is recorded");
  } else if (left && state.live) {
    const about = left.high > 0 ? `About ${formatDuration(Math.max(1, Math.round(left.seconds)))} left` : "Overdue", most = formatDuration(Math.max(1, Math.round(left.high)));
    const range = left.high > 0 ? `${Math.round(left.low) ? `Between ${formatDuration(Math.round(left.low))} and` : "At most"} ${most}; ready about ${clock(now() + left.seconds)}` : "It is usually ready by now";
    const expected = found === "slow" ? expectedOf(step) : null;
    say(big, expected ? `No: ${digits(secondsOf(expected) / expected.usual.seconds, 2)} times the usual` : about);
    say(small, `${expected ? `${about}. ` : ""}${range}. From ${runs}`);
  } else {
    say(big, "No usual time known");
    big.classList.add("unsure");
    say(small, "No earlier start of this configuration is recorded");
  }
}

const ADVICE = { failed: "Look at the step that failed first:", cancelled: "Look at the step that was cancelled first:", stuck: "Look at the step that the others wait for:",
  slow: "Look at the step that is slower than usual:", starting: "Nothing. The start waits for:", unknown: "Look at the step that ran last:", ready: "Nothing. The longest step was:" };

function drawAdvice(root, { state: found, step, stuck }) {
  const longest = found === "ready" ? longestSteps()[0] : null, shown = step ?? longest?.step, button = byId("look");
  say(byId("advice"), shown || stuck ? ADVICE[found] : found === "ready" ? "Nothing" : "Wait for the next step");
  button.hidden = !shown;
  if (shown) { say(button, placeOf(shown)); button.dataset.id = shown.id; }
  const usual = shown?.usual && (!longest || longest.seconds === secondsOf(shown)) ? `, usually ${formatUsual(shown.usual)}` : "";
  const reason = found === "failed" || found === "cancelled" ? shown?.error ?? "No reason is given"
    : stuck ? `${shown ? "" : `${stuck.name} in ${stuck.process} (pid ${stuck.pid}): `}${stuck.reason}`
    : !shown ? "" : found === "ready" ? `${formatDuration(longest.seconds)}, ${Math.round(100 * longest.seconds / Math.max(0.001, secondsOf(root)))} % of the start${usual}`
    : `${durationOf(shown, `${ticking(secondsOf(shown))} so far`)}${hasProgress(shown) ? `. ${formatProgress(shown)}` : ""}`;
  say(byId("reason"), reason);
  const next = found === "starting" && state.live ? remaining()?.following ?? [] : [];
  say(byId("following"), next.length ? `Then usually: ${next.map(step => `${titleOf(step)} (${formatDuration(step.seconds)})`).join(", ")}` : "");
}

// The whole start as a bar: what has passed, and in which range it is expected to be ready.
function drawWhole(root) {
  const left = remaining(), bar = byId("whole");
  bar.hidden = !(left && state.live && ["starting", "slow"].includes(byId("headline").className));
  if (bar.hidden) return;
  const passed = secondsOf(root), share = seconds => `${(100 * seconds / (passed + Math.max(left.high, left.seconds, 0.001))).toFixed(2)}%`;
  bar.firstChild.style.width = share(passed);
  bar.lastChild.style.left = share(passed + left.low);
  bar.setAttribute("aria-valuenow", Math.floor(100 * passed / (passed + left.seconds || 1)));
  bar.setAttribute("aria-valuetext", byId("left").textContent);
}

// For screen readers: what has changed, politely, and at most every ten seconds.
let announced = "", announcedAt = -Infinity;

function announce({ state: found, words, step }) {
  const key = `${found} ${words} ${["failed", "stuck", "slow"].includes(found) ? step?.id : ""}`;
  if (key === announced || performance.now() < announcedAt + 10_000 && found === "starting") return;
  announced = key;
  if (found !== "waiting") announcedAt = performance.now();
  say(byId("announcement"), [words, byId("left").textContent, step ? `${byId("advice").textContent} ${placeOf(step)}` : ""].filter(Boolean).join(". "));
}
