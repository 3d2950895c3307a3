// The page: a prompt, up to four responses, and what the judge makes of them.

import { events } from "/page/sse.js";
import { start as startStats } from "/page/stats.js";
import { Card, LETTERS, comparison, element, number } from "/page/view.js";

const MAX_RESPONSES = LETTERS.length;
const byId = (id) => document.getElementById(id);
const state = { running: null, requests: [], replies: [], comparison: null };

// ---- requests

function headers() {
  const key = byId("key").value;
  const list = { "Content-Type": "application/json" };
  if (key !== "") list.Authorization = `Bearer ${key}`;
  return list;
}

async function post(path, body, signal) {
  const reply = await fetch(path, { method: "POST", headers: headers(), body: JSON.stringify(body), signal });
  if (reply.ok) return reply;
  if (reply.status === 401) {
    byId("key-field").hidden = false;
    byId("key").focus();
  }
  let message = `the server answered ${reply.status}`;
  try {
    message = (await reply.json()).error.message;
  } catch {
    // No error of ours: the status has to do.
  }
  throw new Error(message);
}

function question() {
  const votes = Math.min(Math.max(Math.round(Number(byId("votes").value)) || 1, 1), 16);
  const body = { prompt: byId("prompt").value, votes };
  if (byId("task").value !== "auto") body.task = byId("task").value;
  if (byId("model").value !== "") body.model = byId("model").value;
  return body;
}

// ---- responses

function fields() {
  return [...document.querySelectorAll("#responses textarea")];
}

function addResponse(isFocused) {
  const box = element("div");
  const head = element("div", "response-head");
  const label = element("label");
  const text = element("textarea");
  const remove = element("button", "plain", "remove");
  text.rows = 8;
  text.spellcheck = false;
  remove.type = "button";
  remove.addEventListener("click", () => {
    box.remove();
    relabel();
    (fields().at(-1) ?? byId("add")).focus();
  });
  head.append(label, remove);
  box.append(head, text);
  byId("responses").append(box);
  relabel();
  if (isFocused) text.focus();
}

function relabel() {
  const all = fields();
  all.forEach((text, index) => {
    text.id = `response-${index}`;
    const head = text.previousElementSibling;
    head.querySelector("label").htmlFor = text.id;
    head.querySelector("label").textContent = all.length === 1 ? "Response" : `Response ${LETTERS[index]}`;
    head.querySelector("button").hidden = all.length === 1;
    head.querySelector("button").setAttribute("aria-label", `Remove response ${LETTERS[index]}`);
  });
  byId("add").hidden = all.length >= MAX_RESPONSES;
  byId("compare").hidden = all.length !== 2;
}

// ---- running

function say(text, isBad = false) {
  byId("status").textContent = text;
  byId("status").classList.toggle("bad", isBad);
}

function firstEmpty() {
  return [byId("prompt"), ...fields()].find((field) => field.value.trim() === "");
}

// Runs `work` as the one thing that goes on; Stop and Esc end it.
async function run(work) {
  const empty = firstEmpty();
  if (empty !== undefined) {
    say("Fill in the prompt and every response.", true);
    empty.focus();
    return;
  }
  state.running?.abort();
  const control = new AbortController();
  state.running = control;
  byId("stop").hidden = false;
  byId("results").hidden = false;
  const from = performance.now();
  try {
    await work(control.signal);
    const seconds = ((performance.now() - from) / 1000).toFixed(1);
    if (!control.signal.aborted) say(`Done in ${seconds} s.`);
  } catch (error) {
    if (!control.signal.aborted) say(error.message, true);
  } finally {
    if (state.running === control) {
      state.running = null;
      byId("stop").hidden = true;
    }
  }
}

function stop() {
  if (state.running === null) return;
  state.running.abort();
  state.running = null;
  byId("stop").hidden = true;
  say("Stopped.");
}

async function judge(signal) {
  const common = question();
  state.requests = fields().map((field) => ({ ...common, response: field.value }));
  state.replies = state.requests.map(() => null);
  state.comparison = null;
  byId("comparison").hidden = true;
  byId("verdict").textContent = "";
  const cards = state.requests.map((_, index) => new Card(index, common.votes));
  byId("cards").replaceChildren(...cards.map((card) => card.root));
  say("Judging…");
  const all = state.requests.map((request, index) => judgeOne(request, cards[index], index, signal));
  const failed = (await Promise.allSettled(all)).filter((one) => one.status === "rejected");
  showBest(cards);
  if (failed.length > 0 && !signal.aborted) throw failed[0].reason;
}

async function judgeOne(request, card, index, signal) {
  try {
    const reply = await post("/v1/judge", { ...request, stream: true }, signal);
    for await (const { event, data } of events(reply.body)) {
      const value = JSON.parse(data);
      if (event === "text") card.write(value.vote, value.text);
      if (event === "error") throw new Error(value.message);
      if (event === "done") {
        state.replies[index] = value;
        card.finish(value, request.response);
        return;
      }
    }
    throw new Error("the server ended the answer early");
  } catch (error) {
    card.fail(signal.aborted ? "stopped" : error.message);
    throw error;
  }
}

function showBest(cards) {
  const scores = state.replies.map((reply) => reply?.score ?? null);
  if (scores.length < 2 || scores.includes(null)) return;
  const order = scores.map((_, index) => index).sort((a, b) => scores[b] - scores[a]);
  const [first, second] = order;
  const lead = scores[first] - scores[second];
  cards.forEach((card, index) => card.best(lead > 0 && index === first));
  byId("verdict").textContent = lead > 0
    ? `${LETTERS[first]} leads by ${number(lead)}`
    : "No response leads";
}

async function compare(signal) {
  const request = { ...question(), responses: fields().map((field) => field.value), mode: "pairwise" };
  say("Comparing in both orders…");
  const reply = await (await post("/v1/compare", request, signal)).json();
  state.comparison = { request, reply };
  byId("comparison").replaceChildren(comparison(reply));
  byId("comparison").hidden = false;
}

// ---- copying

function results() {
  const judged = state.requests.map((request, index) => ({ request, reply: state.replies[index] }));
  return state.comparison === null ? { judged } : { judged, comparison: state.comparison };
}

// Commands that ask the same again; the key is left to the environment.
function commands() {
  const quote = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  const key = byId("key").value === "" ? "" : " \\\n  -H \"Authorization: Bearer $PATARM_API_KEY\"";
  const line = (path, body) =>
    `curl -s ${quote(location.origin + path)} -H 'Content-Type: application/json'${key} \\\n  -d ${quote(JSON.stringify(body))}`;
  const judged = state.requests.map((request) => line("/v1/judge", request));
  const compared = state.comparison === null ? [] : [line("/v1/compare", state.comparison.request)];
  return [...judged, ...compared].join("\n\n");
}

async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    copyBySelection(text);
  }
  say(`Copied ${what}.`);
}

// For pages without a secure origin, where browsers offer no clipboard.
function copyBySelection(text) {
  const area = element("textarea");
  area.value = text;
  area.className = "skip";
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

// ---- the server

async function describe() {
  const reply = await fetch("/ready", { cache: "no-store" });
  const { models } = await reply.json();
  const names = models.map((model) => model.name);
  const many = names.length === 0 ? "no model: cohorts only" : `${names.length} models`;
  byId("server").textContent = names.length === 1 ? names[0] : many;
  byId("model").replaceChildren(...names.map((name) => {
    const option = element("option", "", name);
    option.value = name;
    return option;
  }));
  byId("model-field").hidden = names.length < 2;
  byId("judge").disabled = names.length === 0;
}

function reachable(isReachable) {
  if (!isReachable) byId("server").textContent = "the server does not answer";
  else if (byId("server").textContent.includes("does not answer")) describe().catch(() => {});
}

// ---- wiring

byId("form").addEventListener("submit", (event) => {
  event.preventDefault();
  run(judge);
});
byId("compare").addEventListener("click", () => run(compare));
byId("add").addEventListener("click", () => addResponse(true));
byId("stop").addEventListener("click", stop);
byId("copy-json").addEventListener("click", () => copy(JSON.stringify(results(), null, 2), "as JSON"));
byId("copy-curl").addEventListener("click", () => copy(commands(), "as curl"));
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    run(judge);
  }
  if (event.key === "Escape") stop();
});

addResponse(false);
describe().catch(() => reachable(false));
startStats(byId("stats"), reachable);
