import * as api from "../api.js";
import { language, t } from "../i18n.js";
import { h, head, command, field, tries, bar } from "../ui.js";

export function show(place, shared) {
  const cards = new Map(), closing = new Map();
  const grid = h("div.cards");
  for (const [name, question] of Object.entries(shared.start.studies)) {
    const simple = question.includes("?"), state = h("div.fields"), line = command(`rizbin study ${name}`);
    const minutes = field(t("minutes"), { type: "number", min: 1, value: 10, oninput: tell }), seeds = field(t("seedsCount"), { type: "number", min: 1, max: 20, value: 1, oninput: tell });
    const given = () => (simple ? { budget: Number(minutes.field.value), seeds: Number(seeds.field.value) } : {});
    function tell() { api.post("check", { command: `study ${name}`, given: given() }).then((made) => line.say(made.line)).catch((error) => line.say(error.message)); }
    const start = h("button.main", { type: "button", onclick: tries(async () => { await api.post("jobs", { command: `study ${name}`, panel: "learn", title: name, given: given() }); }) }, t("answer"));
    cards.set(name, { state, start });
    const lesson = shared.start.lessons[name], spoken = language();
    const asked = lesson ? h("h2", {}, lesson.question[spoken]) : h("h2", { lang: "en", dir: "ltr" }, question.split(/(?<=[?.])\s/)[0]);
    const known = lesson && [h("p.quiet", {}, lesson.reason[spoken]), lesson.number[spoken] && h("details", {}, h("summary", {}, t("foundWhole")), h("p.quiet", {}, lesson.number[spoken]))];
    grid.append(h("section.card", { "aria-label": name }, asked, ...(known || []), simple && h("div.pair", {}, minutes, seeds), state, start, line));
    tell();
  }
  place.append(head("learn"), h("p.quiet", {}, t("learnHint")), h("br"), grid);
  shared.onJobs((jobs) => {
    for (const [name, { state, start }] of cards) {
      const job = jobs.find((each) => each.words[0] === "study" && each.words[1] === name);
      const live = job && ["running", "waiting"].includes(job.state);
      start.hidden = Boolean(live);
      if (!job) { state.replaceChildren(); continue; }
      if (live && closing.get(name)?.id === job.id) continue;
      const share = bar(), said = h("p.quiet.number", { lang: "en", dir: "ltr" });
      if (live) closing.set(name, { id: job.id, close: api.stream(job.id, (event, data) => {
        const last = event === "job" && data.filter((each) => each.kind === "progress").at(-1);
        if (last) { share.to(last.total ? last.done / last.total : 0); said.textContent = `${last.label}: ${last.done}/${last.total}`; }
      }) });
      else { closing.get(name)?.close(); closing.delete(name); }
      state.replaceChildren(h("div.row.between", {}, h("span.chip." + job.state, {}, t(job.state)),
        live ? h("button.tiny", { type: "button", onclick: tries(() => api.post(`jobs/${job.id}/stop`)) }, t("stop")) : job.state === "done" && h("button.tiny", { type: "button", onclick: tries(() => api.openReport(`jobs/${job.id}/study.html`)) }, t("result2"))),
        live ? share : "", live ? said : h("p.quiet", { lang: "en", dir: "ltr" }, job.message ?? ""));
    }
  });
  return () => { for (const { close } of closing.values()) close(); };
}
