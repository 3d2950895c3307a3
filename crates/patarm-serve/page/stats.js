// Live statistics from the server's own measurements.

const PERIOD_MS = 2000;

// Sums of every metric by name, whatever its labels.
export function sums(text) {
  const totals = new Map();
  for (const line of text.split("\n")) {
    if (line === "" || line.startsWith("#")) continue;
    const match = /^([A-Za-z_:][\w:]*)(?:\{.*\})? (\S+)/.exec(line);
    if (match === null || !Number.isFinite(Number(match[2]))) continue;
    totals.set(match[1], (totals.get(match[1]) ?? 0) + Number(match[2]));
  }
  return totals;
}

// Rows to show from two readings `seconds` apart; `before` may be null.
export function rows(now, before, seconds) {
  const value = (name) => now.get(name) ?? 0;
  const rate = (name) => {
    if (before === null || seconds <= 0) return null;
    return Math.max(value(name) - (before.get(name) ?? 0), 0) / seconds;
  };
  const share = (part, whole) => (value(whole) > 0 ? value(part) / value(whole) : null);
  const list = [
    ["requests", whole(value("patarm_requests_total"))],
    ["in flight", whole(value("patarm_in_flight"))],
    ["queued", whole(value("patarm_queue_jobs"))],
    ["read", perSecond(rate("patarm_prompt_tokens_total"))],
    ["written", perSecond(rate("patarm_generated_tokens_total"))],
    ["shared prompts", percent(share("patarm_shared_tokens_total", "patarm_prompt_tokens_total"))],
    ["without score", percent(share("patarm_judgement_faults_total", "patarm_judgements_total"))],
  ];
  if (value("patarm_cohorts_opened_total") > 0) {
    list.push(["cohorts open", whole(value("patarm_cohorts_open"))]);
  }
  return list;
}

const whole = (number) => Math.round(number).toLocaleString("en");
const perSecond = (rate) => (rate === null ? "–" : `${whole(rate)} tokens/s`);
const percent = (share) => (share === null ? "–" : `${(100 * share).toFixed(1)} %`);

// Keeps `list` (a <dl>) up to date while the page is visible.
export function start(list, onReachable) {
  let before = null;
  let at = 0;
  async function tick() {
    if (document.visibilityState === "visible") {
      try {
        const reply = await fetch("/metrics", { cache: "no-store" });
        if (!reply.ok) throw new Error(String(reply.status));
        const now = sums(await reply.text());
        const time = performance.now();
        show(list, rows(now, before, (time - at) / 1000));
        before = now;
        at = time;
        onReachable(true);
      } catch {
        before = null;
        onReachable(false);
      }
    }
    setTimeout(tick, PERIOD_MS);
  }
  tick();
}

function show(list, rows) {
  list.replaceChildren(...rows.map(([name, value]) => {
    const row = document.createElement("div");
    const term = document.createElement("dt");
    const description = document.createElement("dd");
    term.textContent = name;
    description.textContent = value;
    row.append(term, description);
    return row;
  }));
}
