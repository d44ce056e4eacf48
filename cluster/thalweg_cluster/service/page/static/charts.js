// The curves of a run, drawn by uPlot (static/uplot), which is loaded before this module.

import { count, element, figure, percent } from "./words.js";

const CHARTS = [
  {
    title: "loss",
    curves: [
      { of: "train_loss", name: "training", color: "--accent" },
      { of: "eval_loss", name: "held out", color: "--held-out" },
    ],
    word: figure,
  },
  { title: "accuracy, held out", curves: [{ of: "eval_accuracy", name: "accuracy", color: "--held-out" }], word: percent },
  { title: "samples/s", curves: [{ of: "samples_per_s", name: "samples/s", color: "--compute" }], word: count },
  { title: "staleness, mean", curves: [{ of: "staleness", name: "steps", color: "--push" }], word: figure, nonzero: true },
];
const HEIGHT = 180;

const place = document.getElementById("charts");
const dark = matchMedia("(prefers-color-scheme: dark)");
const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

let curve = []; // all points that were told
let newest = null; // where the run is, which may be no point of the curve
let drawn = []; // of the charts that there is something to show of

export function clear() {
  curve = [];
  newest = null;
  for (const chart of drawn) chart.end();
  drawn = [];
}

export const points = () => curve;

export function add(told, now) {
  curve = told.anew ? told.points : curve.concat(told.points);
  newest = now ?? newest;
  draw();
}

function draw() {
  const all = newest && newest.step > (curve.at(-1)?.step ?? -1) ? [...curve, newest] : curve;
  for (const spec of CHARTS) {
    const known = spec.curves.filter(({ of }) => all.some((p) => (spec.nonzero ? p[of] : p[of] !== undefined)));
    if (known.length === 0) continue;
    let chart = drawn.find((each) => each.spec === spec && each.curves === known.length);
    if (!chart) {
      drawn.find((each) => each.spec === spec)?.end();
      drawn = drawn.filter((each) => each.spec !== spec);
      chart = made(spec, known);
      drawn.push(chart);
    }
    chart.set(all);
  }
}

function made(spec, known) {
  const box = element("div", "chart");
  const keys = element("div", "keys");
  const values = known.map(({ name, color }) => {
    const key = element("span");
    const mark = element("i");
    mark.style.background = `var(${color})`;
    const value = element("b");
    key.append(mark, known.length > 1 ? `${name} ` : "", value);
    keys.append(key);
    return value;
  });
  box.append(element("h2", "", spec.title), keys);
  const order = CHARTS.indexOf(spec);
  box.dataset.order = order;
  place.insertBefore(box, [...place.children].find((other) => other.dataset.order > order) ?? null);
  const axis = () => ({
    stroke: color("--dim"),
    font: "12px system-ui, sans-serif",
    grid: { stroke: color("--line"), width: 1 },
    ticks: { stroke: color("--line"), width: 1, size: 4 },
  });
  const data = (all) => [all.map((p) => p.step), ...known.map(({ of }) => all.map((p) => p[of] ?? null))];
  const width = () => Math.max(120, box.clientWidth - 2 * parseFloat(getComputedStyle(box).paddingLeft));
  const plot = new window.uPlot(
    {
      width: width(),
      height: HEIGHT,
      padding: [8, 8, 0, 0],
      legend: { show: false },
      cursor: { y: false, drag: { x: true, y: false } },
      scales: { x: { time: false } },
      axes: [
        { ...axis(), values: (_, ticks) => ticks.map(short), space: 60, size: 30 },
        { ...axis(), values: (_, ticks) => ticks.map(spec.word === percent ? (x) => `${+(100 * x).toFixed(1)} %` : short), size: 56 },
      ],
      series: [{}, ...known.map(({ color: name }) => ({ stroke: color(name), width: 2, spanGaps: true, points: { show: false } }))],
      hooks: { setCursor: [() => tell()] },
    },
    [[], ...known.map(() => [])],
    box,
  );

  // The values under the pointer; else the newest ones.
  function tell() {
    const at = plot.cursor.idx;
    known.forEach((_, i) => {
      const column = plot.data[i + 1];
      const value = at != null && column[at] != null ? column[at] : column.findLast((each) => each !== null);
      values[i].textContent = value === undefined ? "" : spec.word(value) + (at != null ? ` at step ${count(plot.data[0][at])}` : "");
    });
  }

  const sizes = new ResizeObserver(() => plot.setSize({ width: width(), height: HEIGHT }));
  sizes.observe(box);
  return {
    spec,
    curves: known.length,
    set(all) {
      plot.setData(data(all));
      tell();
    },
    end() {
      sizes.disconnect();
      plot.destroy();
      box.remove();
    },
  };
}

// 1500 as "1.5k": an axis has little room.
function short(x) {
  if (x === null) return "";
  for (const [size, letter] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (Math.abs(x) >= size) return `${+(x / size).toFixed(2)}${letter}`;
  }
  return String(+x.toPrecision(3));
}

// Colors are drawn, not styled: with the other scheme all is drawn anew.
dark.addEventListener("change", () => {
  for (const chart of drawn) chart.end();
  drawn = [];
  draw();
});
