// The frame of the page: panels by the address's hash, the activity drawer, language and theme.
import * as api from "./api.js";
import { t, language, setLanguage, number } from "./i18n.js";
import { h, icon, note, tries, command, bar } from "./ui.js";

const PANELS = ["draw", "find", "look", "search", "runs", "learn"];
const main = document.getElementById("main");
const state = { jobs: [], start: null, listeners: new Set() };
let leave = () => {}, away = false;

export const shared = {
  get jobs() { return state.jobs; },
  models: (kind) => state.start.models.filter((model) => model.kind === kind).map((model) => model.name),
  get start() { return state.start; },
  // Calls with the list of jobs now and whenever it changes, until the panel is left.
  onJobs(heard) { state.listeners.add(heard); heard(state.jobs); },
  async refresh() { state.start = await api.get("start"); },
};

function frame() {
  const here = current();
  document.title = `${t(here)} · Rizbin`;
  document.getElementById("skip").textContent = t("skip");
  const nav = document.getElementById("nav");
  nav.setAttribute("aria-label", t("panels"));
  nav.replaceChildren(...PANELS.map((name) => h("a", { href: `#/${name}`, "aria-current": name === here ? "page" : null }, icon(name), h("span", {}, t(name)))));
  const running = state.jobs.filter((job) => ["running", "waiting"].includes(job.state)).length;
  const dark = document.documentElement.dataset.theme ? document.documentElement.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.getElementById("tools").replaceChildren(
    h("button.plain", { type: "button", "aria-label": t("activity"), "aria-expanded": String(!drawer.hidden), onclick: () => toggle() }, icon("activity"), h("span.text", {}, t("activity")), running > 0 && h("span.count", {}, number(running))),
    h("button.plain", { type: "button", "aria-label": t("other"), lang: language() === "fa" ? "en" : "fa", onclick: () => { setLanguage(language() === "fa" ? "en" : "fa"); show(); } }, icon("globe"), h("span.text", {}, t("other"))),
    h("button.plain", { type: "button", "aria-label": dark ? t("light") : t("dark"), onclick: () => theme(dark ? "light" : "dark") }, icon("moon"), h("span.text", {}, dark ? t("light") : t("dark"))),
  );
}
function theme(name) {
  localStorage.setItem("rizbin-theme", name);
  document.documentElement.dataset.theme = name;
  frame();
}
const current = () => { const name = location.hash.replace(/^#\//, "").split("/")[0]; return PANELS.includes(name) ? name : "draw"; };

async function show() {
  leave();
  state.listeners.clear();
  frame();
  if (!state.start) return;
  const panel = await import(`./panels/${current()}.js`);
  const made = h("div");
  leave = panel.show(made, shared, location.hash.split("/")[2] ?? "") ?? (() => {});
  main.replaceChildren(made);
  scrollTo(0, 0);
}

// ---- activity ----
const drawer = document.getElementById("activity");
function toggle(open = drawer.hidden) {
  drawer.hidden = !open;
  list(); frame();
  if (open) drawer.querySelector("button").focus();
}
addEventListener("keydown", (event) => { if (event.key === "Escape" && !drawer.hidden) toggle(false); });
function list() {
  if (drawer.hidden) return;
  drawer.setAttribute("aria-label", t("activity"));
  drawer.replaceChildren(
    h("div.row.between", {}, h("h2", {}, t("activity")), h("button.tiny", { type: "button", onclick: () => toggle(false) }, t("close"))),
    state.jobs.length ? h("div.list", {}, state.jobs.slice(0, 40).map((job) => h("div.item", {},
      h("div.row.between", {}, h("strong.small", {}, job.title || job.words[0]), h("span.chip." + job.state, {}, t(job.state))),
      job.message && h("p.small.quiet", { lang: "en", dir: "ltr" }, job.message),
      command(job.line),
      h("div.row", {},
        ["draw"].includes(job.panel) && h("a.button.tiny", { href: `#/${job.panel}/${job.id}`, onclick: () => toggle(false) }, t("open")),
        job.words[0] === "detect" && job.state === "done" && h("button.tiny", { type: "button", onclick: tries(async () => {
          const link = URL.createObjectURL(new Blob([await api.text(`file/jobs/${job.id}/found.json`)], { type: "application/json" }));
          h("a", { href: link, download: "found.json" }).click();
          setTimeout(() => URL.revokeObjectURL(link), 5000);
        }) }, t("export")),
        ["running", "waiting"].includes(job.state) && h("button.tiny", { type: "button", onclick: tries(() => api.post(`jobs/${job.id}/stop`)) }, t("stop")))))) : h("p.quiet", {}, t("noJobs")),
  );
}

function locked() {
  main.replaceChildren(h("div.empty", {}, icon("look"), h("strong", {}, t("token")), h("p", {}, t("tokenHint"))));
}
async function begin() {
  const held = localStorage.getItem("rizbin-theme");
  if (held) document.documentElement.dataset.theme = held;
  frame();
  try { await shared.refresh(); } catch (error) {
    if (error.status === 401) locked(); else main.replaceChildren(h("p.bad", {}, error.message));
    return;
  }
  api.stream("", (event, data) => {
    if (event !== "jobs") return;
    state.jobs = data;
    for (const heard of state.listeners) heard(data);
    frame(); list();
  }, (status) => {
    if (status === 401) locked();
    if (status && status !== 401 && !away) note(t("lost"));
    away = Boolean(status);
  });
  addEventListener("hashchange", show);
  document.getElementById("skip").addEventListener("click", (event) => { event.preventDefault(); main.focus(); });
  await show();
}
begin();
