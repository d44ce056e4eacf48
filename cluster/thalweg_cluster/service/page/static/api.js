// What is asked of the service. The token, where there is one, stays in this tab and goes with each request.

const KEY = "thalweg-token";
const AGAIN_MS = [500, 1000, 2000, 5000, 10000];
const SILENT_MS = 30000; // the service says at least something every 10 s

export class Refused extends Error {
  constructor(status, why) {
    super(why);
    this.status = status;
  }
}

export function keepToken(token) {
  sessionStorage.setItem(KEY, token);
}

async function ask(path, options = {}) {
  const token = sessionStorage.getItem(KEY);
  const headers = { ...options.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  const answer = await fetch(path, { ...options, headers });
  if (!answer.ok) {
    const { error } = await answer.json().catch(() => ({ error: answer.statusText }));
    throw new Refused(answer.status, error);
  }
  return answer;
}

export async function jobsBefore(id) {
  return (await (await ask(`api/jobs?before=${encodeURIComponent(id)}`)).json()).jobs;
}

export async function cancel(id) {
  const post = { method: "POST", headers: { "Content-Type": "application/json" }, body: "{}" };
  return (await ask(`api/jobs/${encodeURIComponent(id)}/cancel`, post)).json();
}

// Calls `on.news` with all news, of the job `id` or of none, until the function that it returns is called. It asks again
// when the connection is lost: then everything is told anew, after `on.begin`. `on.lost` hears why.
export function listen(id, on) {
  let stopped = false;
  let connection = null;

  async function once() {
    connection = new AbortController();
    let timer;
    const heard = () => {
      clearTimeout(timer);
      timer = setTimeout(() => connection.abort(), SILENT_MS);
    };
    try {
      heard();
      const path = id === null ? "api/news" : `api/news?job=${encodeURIComponent(id)}`;
      const answer = await ask(path, { signal: connection.signal });
      on.begin();
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done || stopped) return;
        heard();
        const lines = (rest + value).split("\n");
        rest = lines.pop();
        for (const line of lines) if (line) on.news(JSON.parse(line));
      }
    } finally {
      clearTimeout(timer);
    }
  }

  async function always() {
    for (let failures = 0; !stopped; failures++) {
      const begun = Date.now();
      let why = null;
      try {
        await once();
      } catch (error) {
        why = error;
      }
      if (stopped) return;
      if (Date.now() - begun > SILENT_MS) failures = 0;
      on.lost(why);
      if (why instanceof Refused && why.status < 500) return; // asking again would not help
      await new Promise((go) => setTimeout(go, AGAIN_MS[Math.min(failures, AGAIN_MS.length - 1)]));
    }
  }

  always();
  return () => {
    stopped = true;
    connection?.abort();
  };
}
