// Numbers and times as a person reads them.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const UNITS = [["d", 86400], ["h", 3600], ["min", 60]];

export const count = (n) => whole.format(n);

// Four digits that count: 0.01234, 1.234, 1,234.
export function figure(x) {
  if (x !== 0 && (Math.abs(x) < 1e-4 || Math.abs(x) >= 1e7)) return x.toExponential(2);
  const size = Math.abs(x) < 1 ? 0 : Math.floor(Math.log10(Math.abs(x))) + 1;
  return x.toLocaleString("en", { maximumFractionDigits: Math.max(0, 4 - size) });
}

// Milliseconds that stand below each other.
export const ms = (x) => x.toFixed(x < 10 ? 3 : x < 100 ? 2 : 1);

export const percent = (x) => `${(100 * x).toFixed(2)} %`;

// "42 s", "7 min", "3 h", "12 d"
export function span(seconds) {
  for (const [unit, length] of UNITS) if (seconds >= 2 * length) return `${Math.floor(seconds / length)} ${unit}`;
  return `${Math.max(0, Math.floor(seconds))} s`;
}

export const clock = (seconds) =>
  new Date(1000 * seconds).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "medium" });

// Sets a text only where it changes: what is selected stays selected.
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function element(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}
