// Puts it together: which job is looked at stands in the address, after "#"; all else comes as news of the service.

import * as api from "./api.js";
import * as one from "./job.js";
import * as list from "./jobs.js";
import { count, say } from "./words.js";

const SURE_MS = 5000;
const at = (id) => document.getElementById(id);
const link = at("link");
const cancel = at("cancel");

let chosen = null; // the id of the job that is looked at
let stop = () => {};
let inAll = 0;
let sure = 0; // until when a second click cancels

function open() {
  stop();
  stop = api.listen(chosen, {
    begin() {
      live(true, "live");
      at("ask").hidden = true;
      one.clear();
    },
    news(told) {
      if (told.counts) counts(told.counts);
      if (told.jobs) list.show(told.jobs);
      at("older").hidden = list.many() >= inAll;
      const job = list.job(chosen);
      if (told.run) one.news(told.run, job);
      if (job && told.jobs?.includes(job)) one.show(job);
      list.mark(chosen);
    },
    lost(why) {
      live(false, why instanceof api.Refused ? why.message : "the service does not answer; trying again");
      if (why instanceof api.Refused && why.status === 401) ask(why);
    },
  });
}

function live(is, text) {
  link.className = is ? "live" : "";
  say(link, text);
}

function counts(told) {
  inAll = Object.values(told).reduce((sum, each) => sum + each, 0);
  const order = ["running", "cancelling", "queued", "failed", "succeeded", "cancelled"];
  say(at("counts"), order.filter((state) => told[state]).map((state) => `${count(told[state])} ${state}`).join(" · "));
}

async function choose() {
  const id = /^#\d+$/.test(location.hash) ? location.hash.slice(1) : null;
  chosen = id;
  calm();
  document.querySelector("main").classList.toggle("chosen", id !== null);
  at("job").hidden = true;
  one.clear();
  list.mark(id);
  const job = list.job(id);
  if (job) one.show(job);
  open();
}

function ask(why) {
  live(false, "a token is needed");
  if (at("ask").hidden) at("token").value = "";
  else say(at("ask-why"), why.message);
  at("ask").hidden = false;
  at("token").focus();
}

at("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  api.keepToken(at("token").value.trim());
  open();
});

// The first click asks, the second one does it.
cancel.addEventListener("click", async () => {
  if (Date.now() > sure) {
    sure = Date.now() + SURE_MS;
    say(cancel, "Cancel: sure?");
    cancel.classList.add("sure");
    setTimeout(() => Date.now() >= sure && calm(), SURE_MS);
    return;
  }
  calm();
  const id = chosen;
  try {
    const job = await api.cancel(id);
    list.show([job]);
    if (id === chosen) one.show(job);
  } catch (error) {
    say(at("cancel-why"), error.message);
  }
});

function calm() {
  sure = 0;
  say(cancel, "Cancel");
  cancel.classList.remove("sure");
  say(at("cancel-why"), "");
}

at("older").addEventListener("click", async () => {
  list.show(await api.jobsBefore(list.oldest()));
  at("older").hidden = list.many() >= inAll;
});

// A page that nobody sees needs no connection: browsers have few for one service.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    stop();
    live(false, "paused");
  } else {
    open();
  }
});
addEventListener("hashchange", choose);
choose();
