// What the judge says, as elements. Text from the judge, the server or the person is
// only ever set as textContent.

import { sections } from "/page/sections.js";

const SVG = "http://www.w3.org/2000/svg";
export const LETTERS = ["A", "B", "C", "D"];

export function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

export function number(value) {
  if (value === null || value === undefined) return "–";
  return Number.isInteger(value) ? String(value) : value.toFixed(2);
}

// The card of one response while it is judged.
export class Card {
  constructor(index, votes) {
    this.root = element("article", "card");
    this.root.setAttribute("aria-label", `Response ${LETTERS[index]}`);
    const head = element("header");
    this.score = element("span", "score none", "…");
    this.note = element("span", "note");
    head.append(element("h3", "", LETTERS[index]), this.score, this.note);
    this.strip = element("div");
    this.votes = element("div");
    this.root.append(head, this.strip, this.votes);
    this.texts = [];
    for (let vote = 0; vote < votes; vote += 1) this.row(vote);
  }

  row(vote) {
    while (this.texts.length <= vote) {
      const row = element("details", "vote");
      const summary = element("summary");
      summary.append(element("span", "", `Vote ${this.texts.length + 1}`), element("b"), element("span", "badge"));
      row.append(summary, element("div"));
      row.open = this.texts.length === 0;
      this.votes.append(row);
      this.texts.push("");
    }
    return this.votes.children[vote];
  }

  // More of what one vote wrote.
  write(vote, text) {
    const row = this.row(vote);
    this.texts[vote] += text;
    const parts = sections(this.texts[vote]).map((part) => {
      const block = element("div", "part");
      if (part.tag !== "") block.append(element("h4", "", part.tag));
      block.append(element("p", part.isOpen ? "writing" : "", part.text));
      return block;
    });
    row.lastChild.replaceChildren(...parts);
    const score = sections(this.texts[vote]).findLast((part) => part.tag === "score" && !part.isOpen);
    if (score !== undefined) row.querySelector("b").textContent = score.text;
  }

  // The whole answer.
  finish(reply, response) {
    this.score.textContent = number(reply.score);
    this.score.classList.toggle("none", reply.score === null);
    const votes = reply.judgements.length;
    this.note.textContent = votes === 0 ? numberNote(reply) : voteNote(reply);
    if (reply.tokens?.length > 0) this.strip.replaceChildren(heatMap("token", reply.tokens));
    if (reply.steps?.length > 0) this.strip.replaceChildren(heatMap("step", steps(reply.steps, response)));
    const scores = reply.judgements.map((judgement) => judgement.score).filter((score) => score !== null);
    if (reply.scale && scores.length > 0) {
      this.strip.replaceChildren(strip(scores, reply.score, reply.scale));
    }
    reply.judgements.forEach((judgement, vote) => this.settle(vote, judgement));
    while (this.votes.children.length > votes) this.votes.lastChild.remove();
  }

  settle(vote, judgement) {
    const row = this.row(vote);
    row.querySelector("b").textContent = judgement.score === null ? "" : number(judgement.score);
    row.querySelector(".badge").textContent = judgement.fault ? judgement.fault.replaceAll("_", " ") : "";
    const parts = [];
    if (judgement.criteria.length > 0) parts.push(criteria(judgement.criteria));
    if (judgement.evaluation !== "") parts.push(paragraph("evaluation", judgement.evaluation));
    if (parts.length === 0 || judgement.fault) parts.push(paragraph("as written", judgement.text));
    row.lastChild.replaceChildren(...parts);
  }

  fail(message) {
    this.score.textContent = "–";
    this.note.textContent = message;
    this.note.classList.add("bad");
    for (const writing of this.root.querySelectorAll(".writing")) writing.classList.remove("writing");
  }

  best(isBest) {
    this.root.classList.toggle("best", isBest);
  }
}

function voteNote(reply) {
  const votes = reply.judgements.length;
  const usable = reply.valid_votes === votes ? "" : `, ${reply.valid_votes} usable`;
  const spread = reply.valid_votes > 1 ? `± ${number(reply.spread)} over ` : "";
  return `${spread}${votes} ${votes === 1 ? "vote" : "votes"}${usable}`;
}

// What a model that writes nothing knows beside its number.
function numberNote(reply) {
  const variance = reply.variance ?? null;
  return variance === null ? "" : `± ${number(Math.sqrt(variance))} by its own distribution`;
}

// Steps with their text; what stands between two of them goes with the first.
function steps(scored, response) {
  const characters = [...response];
  return scored.map(({ start, value }, index) => {
    const next = scored[index + 1]?.start ?? characters.length;
    return { text: characters.slice(index === 0 ? 0 : start, next).join(""), value };
  });
}

// The tokens or steps of a response on a ground that says how far each stands from the mean.
function heatMap(kind, parts) {
  const mean = parts.reduce((sum, part) => sum + part.value, 0) / parts.length;
  const most = Math.max(...parts.map((part) => Math.abs(part.value - mean))) || 1;
  const block = element("div", "part");
  const text = element("p", "heat");
  for (const part of parts) {
    const away = part.value - mean;
    const shown = element("span", away < 0 ? "low" : "high", part.text);
    shown.style.setProperty("--heat", `${Math.round((70 * Math.abs(away)) / most)}%`);
    shown.title = number(part.value);
    text.append(shown);
  }
  const values = parts.map((part) => part.value);
  const range = `${number(Math.min(...values))} to ${number(Math.max(...values))}`;
  block.append(element("h4", "", `value of each ${kind}, ${range}: green above the mean, red below`), text);
  return block;
}

function criteria(list) {
  const block = element("div", "part");
  const items = element("ul");
  for (const criterion of list) {
    const item = element("li");
    item.append(element("b", "", criterion.name));
    if (criterion.weight !== null) item.append(element("span", "weight", ` ${number(criterion.weight)} %`));
    if (criterion.description !== "") item.append(`: ${criterion.description}`);
    items.append(item);
  }
  block.append(element("h4", "", "criteria"), items);
  return block;
}

function paragraph(title, text) {
  const block = element("div", "part");
  block.append(element("h4", "", title), element("p", "", text));
  return block;
}

// Votes as dots on the scale, equal ones stacked, with a line at the combined score.
function strip(scores, combined, [low, high]) {
  const x = (score) => 8 + (284 * (score - low)) / (high - low || 1);
  const svg = shape("svg", { class: "strip", viewBox: "0 -6 300 42", role: "img" });
  svg.setAttribute("aria-label", `votes: ${scores.map(number).join(", ")}`);
  svg.append(shape("line", { x1: 8, x2: 292, y1: 22, y2: 22 }));
  for (const [at, anchor] of [[low, "start"], [high, "end"]]) {
    const label = shape("text", { x: anchor === "start" ? 2 : 298, y: 36, "text-anchor": anchor });
    label.textContent = number(at);
    svg.append(label);
  }
  if (combined !== null) {
    svg.append(shape("line", { class: "mean", x1: x(combined), x2: x(combined), y1: 14, y2: 30 }));
  }
  const stacked = new Map();
  for (const score of scores) {
    const level = stacked.get(score) ?? 0;
    stacked.set(score, level + 1);
    svg.append(shape("circle", { cx: x(score), cy: 22 - 7 * Math.min(level, 3), r: 5 }));
  }
  return svg;
}

function shape(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

// The outcome of a comparison in both orders.
export function comparison(reply) {
  const card = element("article", "card");
  const say = (best) => (best === null ? "tie" : LETTERS[best]);
  const head = element("header");
  const agreement = reply.is_consistent ? "both orders agree" : "the orders disagree, which counts as a tie";
  head.append(
    element("h3", "", "Shown together"),
    element("span", "score", reply.best === null ? "tie" : `${LETTERS[reply.best]} is better`),
    element("span", "note", agreement),
  );
  card.append(head);
  for (const vote of reply.votes) {
    const row = element("details", "vote");
    const summary = element("summary");
    summary.append(element("span", "", vote.is_swapped ? "B shown first" : "A shown first"));
    summary.append(element("b", "", vote.fault ? "" : say(vote.best)));
    summary.append(element("span", "badge", vote.fault ? vote.fault.replaceAll("_", " ") : ""));
    row.append(summary, paragraph("as written", vote.text));
    card.append(row);
  }
  return card;
}
