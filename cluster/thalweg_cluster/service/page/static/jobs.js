// The list of jobs: one entry each, the newest first, changed where its job has changed.

import { count, element, figure, say, span } from "./words.js";

const list = document.getElementById("list");
const filter = document.getElementById("filter");
const state = document.getElementById("state");
const entries = new Map(); // by id: { job, item, and its parts }

export const job = (id) => entries.get(id)?.job;
export const oldest = () => list.lastElementChild?.dataset.id;
export const many = () => entries.size;

export function show(jobs) {
  for (const job of jobs) {
    const entry = entries.get(job.id) ?? added(job.id);
    entry.job = job;
    fill(entry);
  }
  sift();
}

export function mark(id) {
  for (const [each, { link }] of entries) {
    if (each === id) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
}

// Shows the entries that the filter lets through.
export function sift() {
  const words = filter.value.toLowerCase();
  let shown = 0;
  for (const { job, item } of entries.values()) {
    const text = `${job.id} ${job.name} ${job.why} ${job.error}`.toLowerCase();
    item.hidden = !((state.value === "" || job.state === state.value) && text.includes(words));
    shown += !item.hidden;
  }
  document.getElementById("none").hidden = shown > 0;
}

filter.addEventListener("input", sift);
state.addEventListener("change", sift);

function added(id) {
  const item = element("li");
  const link = element("a");
  const parts = {
    number: element("span", "number", id),
    name: element("span", "name"),
    state: element("span", "state"),
    progress: element("span", "progress"),
    line: element("span", "line"),
  };
  const bar = element("i");
  parts.progress.append(bar);
  link.href = `#${id}`;
  link.append(...Object.values(parts));
  item.dataset.id = id;
  item.append(link);
  // Ids grow: a new job belongs before all with a smaller one.
  const next = [...list.children].find((other) => Number(other.dataset.id) < Number(id)) ?? null;
  list.insertBefore(item, next);
  const entry = { item, link, bar, ...parts };
  entries.set(id, entry);
  return entry;
}

function fill({ job, name, state, progress, bar, line }) {
  say(name, job.name);
  say(state, job.state);
  state.className = `state ${job.state}`;
  const share = shareOf(job);
  progress.hidden = share === null;
  if (share !== null) bar.style.width = `${100 * share}%`;
  line.className = job.state === "failed" ? "line bad" : "line";
  say(line, lineOf(job));
}

// How far a job is that runs, from 0 to 1; null: it does not, or that is not known.
export function shareOf(job) {
  return job.state === "running" && job.step !== null && job.steps ? Math.min(1, job.step / job.steps) : null;
}

function lineOf(job) {
  if (job.state === "queued") return job.why || "waits";
  if (job.state === "failed") return firstLine(job.error) || "no reason was told";
  const parts = [];
  if (job.step !== null) parts.push(job.steps ? `step ${count(job.step)} of ${count(job.steps)}` : `step ${count(job.step)}`);
  if (job.loss !== null) parts.push(`loss ${figure(job.loss)}`);
  if (job.samples_per_s) parts.push(`${count(job.samples_per_s)} samples/s`);
  if (job.ended_s !== null && job.started_s !== null) parts.push(span(job.ended_s - job.started_s));
  return parts.join(" · ") || "starts";
}

const firstLine = (text) => text.split("\n", 1)[0];
