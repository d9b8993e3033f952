// What a job found in all pictures: a grid of them with their boxes, as the command drew them.
import * as api from "./api.js";
import { t, number } from "./i18n.js";
import { h, bar, command, image, tries } from "./ui.js";

export function everywhere(open) {
  const place = h("section.card", { hidden: true, "aria-label": t("allTitle") });
  let shown = "", close = () => {};
  const name = (file) => file.replace(/\.[^.]*$/, "");
  async function results(id, body) {
    const found = JSON.parse(await api.text(`file/jobs/${id}/found.json`)), names = new Map(found.categories.map((each) => [each.id, each.name]));
    const rows = found.images.map((each, index) => ({ ...each, drawn: `${name(each.file_name)}-${String(index + 1).padStart(4, "0")}.png`, boxes: found.annotations.filter((box) => box.image_id === each.id).sort((a, b) => b.score - a.score) }));
    rows.sort((a, b) => (b.boxes[0]?.score ?? 0) - (a.boxes[0]?.score ?? 0));
    const words = (row) => row.boxes.slice(0, 4).map((box) => `${names.get(box.category_id)} ${number(box.score, 2)}`).join(" · ") + (row.boxes.length > 4 ? " …" : "");
    if (shown !== id) return;
    body.replaceChildren(h("p.quiet.number", {}, t("allCount", { n: found.annotations.length, some: rows.filter((row) => row.boxes.length).length, all: rows.length })),
      h("div.grid.wide", {}, rows.map((row) => h("figure", {}, h("button", { type: "button", "aria-label": `${t("open")}: ${words(row) || t("nothingFound")}`, onclick: () => open(name(row.file_name)) }, image(`jobs/${id}/drawn/${row.drawn}`)),
        h("figcaption.number", { dir: "auto" }, words(row) || t("nothingFound"))))));
    place.dataset.shown = id;
  }
  // The newest job of this kind; called with all jobs whenever one changes.
  function show(jobs) {
    const job = jobs.find((each) => each.panel === "find" && each.words[0] === "detect");
    place.hidden = !job;
    if (!job || (shown === job.id && place.dataset.state === job.state)) return;
    close(); close = () => {};
    shown = job.id; place.dataset.state = job.state; delete place.dataset.shown;
    const live = ["running", "waiting"].includes(job.state), share = bar(), body = h("div.fields"), line = command(job.line);
    share.hidden = !live;
    place.replaceChildren(h("div.row.between", {}, h("h2", { dir: "auto" }, `${t("allTitle")}: ${job.title}`), h("div.row", {}, h("span.chip." + job.state, {}, t(job.state)),
      live && h("button.tiny", { type: "button", onclick: tries(() => api.post(`jobs/${job.id}/stop`)) }, t("stop")))), share, ...(job.message ? [h("p.quiet", { lang: "en", dir: "ltr" }, job.message)] : []), body, h("div.fields", {}, h("span.label", {}, t("command")), line));
    if (live) close = api.stream(job.id, (kind, events) => { if (kind === "job") for (const event of events) if (event.kind === "progress" && event.total) share.to(event.done / event.total); });
    if (job.state === "done") tries(results)(job.id, body);
  }
  return { place, show, close: () => close() };
}
