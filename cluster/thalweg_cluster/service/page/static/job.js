// One job: how far it is, its figures, where the time of its workers goes, and what died.

import * as charts from "./charts.js";
import { shareOf } from "./jobs.js";
import { clock, count, element, figure, ms, percent, say, span } from "./words.js";

const PHASES = ["sample", "compute", "push", "wait"];
const at = (id) => document.getElementById(id);

let run = {}; // the newest that was told of each

// Nothing is known of the run.
export function clear() {
  run = {};
  charts.clear();
  for (const id of ["by-worker", "died"]) at(id).hidden = true;
  at("figures").replaceChildren();
}

export function show(job) {
  at("job").hidden = false;
  say(at("name"), job.name);
  say(at("job-state"), job.state);
  at("job-state").className = `state ${job.state}`;
  say(at("about"), aboutOf(job));
  const reason = job.state === "queued" ? [job.why, job.error].filter(Boolean).join("\n\n") : job.error;
  at("reason").hidden = !reason;
  at("reason").className = job.state === "queued" ? "waits" : "";
  say(at("reason"), reason);
  at("cancel").hidden = !["queued", "running"].includes(job.state);
  const share = shareOf(job);
  at("progress").hidden = share === null;
  at("progress").firstElementChild.style.width = `${100 * (share ?? 0)}%`;
  figures(job);
}

export function news(told, job) {
  run = { ...run, ...told };
  if (told.curve) {
    charts.add(told.curve, told.newest);
    run.accuracy = told.curve.points.findLast((point) => point.eval_accuracy !== undefined)?.eval_accuracy ?? run.accuracy;
  }
  if (told.workers) workers();
  if (told.losses) losses();
  if (job) figures(job);
}

function aboutOf(job) {
  const parts = [`job ${job.id}`, job.workers === 1 ? "1 worker" : `${job.workers} workers`];
  if (job.priority) parts.push(`priority ${job.priority}`);
  parts.push(job.started_s === null ? `submitted ${clock(job.submitted_s)}` : `started ${clock(job.started_s)}`);
  if (job.attempts > 1) parts.push(`attempt ${job.attempts}`);
  if (job.ended_s !== null) parts.push(`ended ${clock(job.ended_s)}`);
  return `${parts.join(" · ")} · ${job.folder}`;
}

function figures(job) {
  const newest = run.newest ?? {};
  const { staleness, checkpoints } = run;
  const step = job.state === "running" ? newest.step ?? job.step : job.step ?? newest.step;
  const slow = run.workers?.filter((worker) => worker.straggler);
  const died = run.losses?.length ?? 0;
  const shown = [
    ["step", step == null ? "–" : count(step), job.steps ? `of ${count(job.steps)}` : ""],
    ["loss", job.loss ?? newest.train_loss, "", figure],
    ["accuracy, held out", run.accuracy, "", percent],
    ["samples/s", newest.samples_per_s ?? job.samples_per_s, "", count],
    ["staleness", staleness?.mean, staleness ? `at most ${staleness.max}` : "", figure],
    ["stragglers", slow?.length, slow?.length ? `worker ${slow.map((worker) => worker.rank).join(", ")}` : "", count],
    ["restarts", died, died ? run.losses.at(-1)[0] : "", count],
    ["checkpoints", checkpoints?.saved, checkpointsOf(checkpoints), count],
    ["cost", job.worker_seconds, "worker-seconds", count],
  ];
  if (run.skipped) shown.push(["skipped steps", run.skipped, "not finite", count]);
  at("figures").replaceChildren(
    ...shown
      .filter(([, value]) => value != null)
      .map(([name, value, more, word = String]) => {
        const figure = element("div");
        const dd = element("dd", "", word(value));
        if (more) dd.append(element("small", "", more));
        figure.append(element("dt", "", name), dd);
        return figure;
      }),
  );
}

function checkpointsOf(checkpoints) {
  if (!checkpoints) return "";
  const parts = checkpoints.step === null ? [] : [`newest: step ${count(checkpoints.step)}`];
  for (const name of ["failed", "skipped"]) if (checkpoints[name]) parts.push(`${checkpoints[name]} ${name}`);
  return parts.join(", ");
}

function workers() {
  at("by-worker").hidden = run.workers.length === 0;
  say(at("window"), run.window_s === null ? "on average" : `in the last ${span(run.window_s)}, on average`);
  const longest = Math.max(...run.workers.map(total), 1e-9);
  at("workers").replaceChildren(
    ...run.workers.map((worker) => {
      const row = element("tr", worker.straggler ? "straggler" : "");
      const bar = element("div", "bar");
      for (const phase of PHASES) {
        const part = element("i", phase);
        part.style.width = `${(100 * worker[`${phase}_ms`]) / longest}%`;
          bar.append(part);
      }
      const wide = element("td", "wide");
      wide.append(bar);
      const cells = PHASES.map((phase) => cell(phase, ms(worker[`${phase}_ms`])));
      row.append(element("td", "", nameOf(worker)), wide, ...cells, cell("slowness", slownessOf(worker)));
      return row;
    }),
  );
}

const total = (worker) => PHASES.reduce((sum, phase) => sum + worker[`${phase}_ms`], 0);
const nameOf = (worker) => `worker ${worker.rank}${worker.straggler ? ", straggler" : ""}`;

function slownessOf(worker) {
  if (worker.sits_out) return "sits out";
  return worker.slowness === null ? "–" : `${worker.slowness.toFixed(2)} ×`;
}

function cell(name, text) {
  const made = element("td", "", text);
  made.dataset.of = name;
  return made;
}

function losses() {
  at("died").hidden = run.losses.length === 0;
  at("losses").replaceChildren(
    ...run.losses.map(([kind, number, cause]) =>
      element("li", "", kind === "coordinator" ? `coordinator: ${cause}` : `${kind} ${number}: ${cause}`),
    ),
  );
}
