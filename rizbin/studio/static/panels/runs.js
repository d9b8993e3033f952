import * as api from "../api.js";
import uPlot from "../vendor/uplot.js";
import { t, number } from "../i18n.js";
import { h, head, empty, command, field, select, tries, note } from "../ui.js";
import { form } from "../form.js";
import { stills } from "../stills.js";

const INK = ["#0f9d8f", "#d9622b", "#7c5cd6", "#c8384a", "#3b7de0", "#b08a1a", "#d0548f", "#4c9a4c"];
const held = { chosen: null, metric: "loss", smooth: 0, log: false, method: "detailclip" };

export function show(place, shared) {
  let runs = [], curves = new Map(), plot = null, settings = null, gone = false, jobs = [];
  const list = h("div.list"), chart = h("div.chart", { role: "img", "aria-label": t("metric") }), alarms = h("div.list"), pick = h("div"), seen = stills();
  const smooth = field(t("smooth"), { type: "range", min: 0, max: 0.98, step: 0.02, value: held.smooth, oninput: () => { held.smooth = Number(smooth.field.value); draw(); } });
  const logs = field(t("log10"), { type: "checkbox", checked: held.log, onchange: () => { held.log = logs.field.checked; draw(); } });
  logs.className = "check"; logs.prepend(logs.field);
  const stage = h("div.card"), fields = h("div"), line = command(""), method = select(t("method"), Object.keys(shared.start.methods).map((name) => [name, name]), held.method, (name) => { held.method = name; load(); });
  const about = h("p.quiet", { lang: "en", dir: "ltr" });
  const request = () => ({ command: `train ${held.method}`, panel: "runs", title: `train ${held.method}`, given: settings.given() });
  const check = async () => { try { line.say((await api.post("check", request())).line); } catch (error) { line.say(error.message); } };
  async function load() {
    const { flags } = await api.get(`form?command=train ${held.method}`);
    about.textContent = shared.start.methods[held.method];
    settings = form(flags, { first: ["minutes", "steps", "batch", "seed"], hidden: ["run", "quiet", "images", "validation_data"], changed: check, choices: { data: ["scenes", "scenes:easy", "scenes:hard", "scenes:detail", "digits"] } });
    fields.replaceChildren(settings); check();
  }
  const begin = tries(async (event) => {
    event.preventDefault();
    const job = await api.post("jobs", request());
    held.chosen ??= new Set(); held.chosen.add(job.run);
    await refresh();
  });
  place.append(head("runs"), h("div.desk", {}, h("form.card", { onsubmit: begin }, h("h2", {}, t("newRun")), method, about, fields, h("button.main", { type: "submit" }, t("start")), h("div.fields", {}, h("span.label", {}, t("command")), line)), stage));
  const job = (run) => jobs.find((each) => each.run === run.name);
  async function refresh() {
    runs = (await api.get("runs")).runs;
    const waiting = jobs.filter((each) => each.run && !runs.some((run) => run.name === each.run) && ["waiting", "running"].includes(each.state));
    runs.unshift(...waiting.map((each) => ({ name: each.run, method: each.words[1], steps: null, finished: false, report: false, coming: true })));
    if (!held.chosen && runs.length) held.chosen = new Set([runs[0].name]);
    if (!runs.length) { stage.replaceChildren(h("div.view", {}, empty("runs", t("runsEmpty"), t("runsEmptyHint")))); return; }
    if (!chart.isConnected) stage.replaceChildren(h("div.row.between", {}, pick, smooth, logs), chart, alarms, list, seen.place);
    list.replaceChildren(...runs.map((run, index) => {
      const swatch = h("span.swatch"); swatch.style.background = INK[index % INK.length];
      const mine = job(run), live = mine && ["running", "waiting"].includes(mine.state);
      const box = h("input", { type: "checkbox", checked: held.chosen.has(run.name), "aria-label": run.name, onchange: tries(async () => { if (box.checked) held.chosen.add(run.name); else held.chosen.delete(run.name); await follow(); }) });
      return h("div.item.run", {}, box, swatch, h("div.names.grow", {}, h("strong", { lang: "en" }, run.name), h("span.quiet", { lang: "en" }, [run.method, run.data, run.steps && t("steps", { n: run.steps })].filter(Boolean).join(" · "))),
        h("div.row", {}, live ? h("span.chip." + mine.state, {}, t(mine.state)) : run.finished ? h("span.chip.done", {}, t("finished")) : mine && h("span.chip." + mine.state, { title: mine.message }, t(mine.state)),
          live && h("button.tiny", { type: "button", onclick: tries(() => api.post(`jobs/${mine.id}/stop`)) }, t("stop")),
          !live && !run.finished && mine && h("button.tiny", { type: "button", onclick: tries(() => api.post("jobs", { command: mine.words.slice(0, 2).join(" "), panel: "runs", title: mine.title, given: again(mine), resume: run.name })) }, t("resume")),
          run.report && h("button.tiny", { type: "button", onclick: tries(() => api.openReport(`runs/${run.name}/report.html`)) }, t("report"))));
    }));
    await follow();
  }
  // The same words again go on with a run; the page gives them as values.
  const again = (mine) => mine.given ?? {};
  async function follow() {
    for (const name of held.chosen) {
      if (!runs.some((run) => run.name === name && !run.coming)) continue;
      const run = runs.find((each) => each.name === name), known = curves.get(name);
      if (known?.finished) continue;
      try { curves.set(name, await api.get(`runs/${name}`)); } catch (error) { if (error.status !== 404) throw error; }
    }
    seen.show(runs.filter((run) => held.chosen.has(run.name) && curves.has(run.name)).map((run) => ({ name: run.name, steps: curves.get(run.name).checkpoints })));
    draw();
  }
  function draw() {
    const shown = runs.map((run, index) => [run, index]).filter(([run]) => held.chosen.has(run.name) && curves.get(run.name)?.steps.length);
    const names = [...new Set(shown.flatMap(([run]) => Object.keys(curves.get(run.name).series)))];
    if (names.length && !names.includes(held.metric)) held.metric = names.find((name) => name.includes("loss")) ?? names[0];
    if (pick.dataset.names !== names.join()) { pick.dataset.names = names.join(); pick.replaceChildren(select(t("metric"), names.map((name) => [name, name]), held.metric, (name) => { held.metric = name; draw(); })); }
    const alarming = shown.flatMap(([run]) => curves.get(run.name).alarms.slice(-1).map((alarm) => h("p.alarm", { lang: "en", dir: "ltr" }, `${run.name}, step ${alarm.step}: ${alarm.text}`)));
    alarms.replaceChildren(...alarming);
    plot?.destroy(); plot = null;
    chart.replaceChildren();
    if (!shown.length) { chart.replaceChildren(h("p.quiet", {}, t("numbersSoon"))); return; }
    const all = [...new Set(shown.flatMap(([run]) => curves.get(run.name).steps))].sort((a, b) => a - b);
    const data = [all, ...shown.map(([run]) => {
      const curve = curves.get(run.name), values = new Map(curve.steps.map((step, index) => [step, curve.series[held.metric]?.[index] ?? null]));
      let mean = null;
      return all.map((step) => { const value = values.get(step) ?? null; if (value === null) return null; mean = mean === null ? value : held.smooth * mean + (1 - held.smooth) * value; return held.log && mean <= 0 ? null : mean; });
    })];
    const css = getComputedStyle(document.documentElement), soft = css.getPropertyValue("--soft"), faint = css.getPropertyValue("--line");
    const axis = { stroke: soft, grid: { stroke: faint, width: 1 }, ticks: { stroke: faint, width: 1 }, font: "12px system-ui" };
    plot = new uPlot({ width: Math.max(chart.clientWidth, 240), height: 300, scales: { x: { time: false }, y: { distr: held.log ? 3 : 1 } }, axes: [axis, { ...axis, size: 60 }], cursor: { points: { size: 6 } },
      series: [{ label: "step" }, ...shown.map(([run, index]) => ({ label: run.name, stroke: INK[index % INK.length], width: 2, spanGaps: true, points: { show: false } }))] }, data, chart);
  }
  const size = () => plot?.setSize({ width: Math.max(chart.clientWidth, 240), height: 300 });
  addEventListener("resize", size);
  shared.onJobs((list) => { jobs = list; refresh().catch(() => {}); });
  const clock = setInterval(() => { if (!document.hidden && !gone) refresh().catch(() => {}); }, 2500);
  load().catch((error) => note(error.message));
  refresh().catch((error) => note(error.message));
  return () => { gone = true; seen.close(); clearInterval(clock); removeEventListener("resize", size); plot?.destroy(); };
}
