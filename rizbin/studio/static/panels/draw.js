import * as api from "../api.js";
import { t, number } from "../i18n.js";
import { h, head, empty, image, command, tabs, field, bar, spark, tries, tray } from "../ui.js";
import { form } from "../form.js";

const HIDDEN = ["prompts", "prompt", "image", "output", "quiet", "film", "device", "half", "offload", "judge", "grid", "object", "verify", "autoencoder"];
const FIRST = { generate: ["steps", "seed", "count", "guidance_scale"], edit: ["strength", "steps", "seed", "count"], repair: ["steps", "seed"], ascend: ["steps", "seed", "count", "preset"] };
const held = { mode: "generate", prompt: "", values: {} };

export function show(place, shared, opened) {
  let settings = null, chosen = null, close = () => {}, job = null;
  const prompt = field(t("prompt"), { rows: 2, value: held.prompt, placeholder: t("promptHint"), dir: "auto", maxLength: 1000 });
  const fields = h("div"), line = command("rizbin generate"), problem = h("p.bad", { hidden: true });
  const pictures = tray({ chosen: () => chosen, pick: (one) => { chosen = one.id; check(); } });
  const start = h("button.main", { type: "submit" }, t("drawButton"));
  const hint = h("p.quiet", {}, t("repairHint"));
  const modes = tabs({ generate: t("fromWords"), edit: t("fromPicture"), repair: t("repair"), ascend: t("ascent") }, held.mode, (mode) => { held.mode = mode; load(); }, t("draw"));
  const stage = h("div.stage", {}, h("div.view", {}, empty("draw", t("drawEmpty"), t("drawEmptyHint"),
    h("button", { type: "button", onclick: () => { prompt.field.value = "a zebra and a frog"; settings?.set("guidance_scale", 4); check(); start.focus(); } }, t("example")))));
  const request = () => ({
    command: held.mode, panel: "draw", title: prompt.field.value,
    given: { [held.mode === "edit" ? "prompt" : "prompts"]: [prompt.field.value.trim()], ...(held.mode === "edit" ? { image: chosen } : {}), ...settings.given() },
  });
  async function load() {
    const { flags } = await api.get(`form?command=${held.mode}`);
    const least = held.mode === "generate" ? 4 : undefined;
    settings = form(flags, { first: FIRST[held.mode], hidden: HIDDEN, changed: check, choices: held.mode === "ascend" ? {} : { model: shared.models("text-to-image") }, values: least ? { guidance_scale: 4 } : {} });
    fields.replaceChildren(settings);
    pictures.hidden = held.mode !== "edit";
    hint.hidden = !["repair", "ascend"].includes(held.mode);
    hint.textContent = held.mode === "ascend" ? t("ascentHint") : t("repairHint");
    check();
  }
  let soon = 0;
  function check() {
    held.prompt = prompt.field.value;
    clearTimeout(soon);
    soon = setTimeout(async () => {
      if (!settings || !prompt.field.value.trim() || (held.mode === "edit" && !chosen)) { problem.hidden = true; return; }
      try { line.say((await api.post("check", request())).line); problem.hidden = true; } catch (error) { problem.textContent = error.message; problem.hidden = false; }
    }, 250);
  }
  prompt.field.addEventListener("input", check);
  const go = tries(async (event) => {
    event.preventDefault();
    if (!prompt.field.value.trim()) { prompt.field.focus(); return; }
    const made = await api.post("jobs", request());
    history.replaceState(null, "", `#/draw/${made.id}`);
    watch(made.id);
  });
  place.append(head("draw"), h("div.desk", {},
    h("form.card", { onsubmit: go }, modes, hint, prompt, pictures, fields, start, problem, h("div.fields", {}, h("span.label", {}, t("command")), line)),
    stage));

  function watch(id) {
    close();
    const view = makeStage(id, tries(() => api.post(`jobs/${id}/stop`)));
    stage.replaceChildren(view.place);
    job = { id, view };
    close = api.stream(id, (event, data) => { if (event === "job") view.heard(data); else view.jobs(data); });
  }
  if (opened) watch(opened);
  load();
  return () => close();
}

// What is seen of one job: all its events are here, so any step of any image can be looked at again.
function makeStage(id, stop) {
  const images = [];
  let results = [], shown = { image: 0, step: -1, what: "seen" }, follow = true;
  const picture = h("img.big.pixel", { alt: t("result"), width: 432, height: 432 }), caption = h("p.quiet.number", {});
  const scrub = h("input", { type: "range", min: 0, max: 0, value: 0, "aria-label": t("stepOf", { step: "", total: "" }), oninput: () => { follow = false; shown.step = Number(scrub.value); draw(); } });
  const kinds = h("div"), strip = h("div.strip"), grid = h("div.grid"), share = bar(), line = command(""), message = h("p.quiet"), stages = h("div.list");
  const trio = h("div.trio", { hidden: true }), curve = h("div");
  const halt = h("button.tiny", { type: "button", onclick: stop }, t("stop"));
  const place = h("div.card", {}, h("div.row.between", {}, kinds, halt), share, h("div.view", {}, picture, trio), caption, scrub, curve, strip, message, stages, grid, h("div.fields", {}, h("span.label", {}, t("command")), line));
  picture.hidden = true;
  let kind = "";
  function tabsOf(step) {
    const names = step?.score !== undefined ? { seen: t("still-image") } : { seen: t("seen"), noisy: t("noisy"), ...(step?.with ? { guidance: t("guidance") } : {}), ...Object.fromEntries((step?.words ?? []).map((word, index) => [`word${index}`, `“${word.word}”`])) };
    const key = Object.values(names).join();
    if (!(shown.what in names)) shown.what = "seen";
    if (key !== kind) { kind = key; kinds.hidden = Object.keys(names).length < 2; kinds.replaceChildren(tabs(names, shown.what, (what) => { shown.what = what; draw(); }, t("result"))); }
  }
  function draw() {
    const steps = images[shown.image] ?? [];
    const total = steps.length;
    const finished = results[shown.image];
    scrub.max = Math.max(total - 1 + (finished ? 1 : 0), 0);
    const at = Math.min(shown.step < 0 || follow ? Number(scrub.max) : shown.step, Number(scrub.max));
    scrub.value = at;
    const step = steps[at];
    tabsOf(steps[total - 1]);
    const file = step ? (shown.what === "noisy" ? step.noisy : shown.what.startsWith("word") ? step.words[Number(shown.what.slice(4))]?.file : step.seen) ?? step.seen : finished?.file;
    const guided = Boolean(step?.with) && shown.what === "guidance";
    trio.hidden = !guided;
    if (guided) {
      picture.hidden = true;
      if (!trio.childElementCount) trio.replaceChildren(...["withoutPrompt", "withPrompt", "guided"].map((name) => h("figure", {}, h("img.pixel", { alt: t(name) }), h("figcaption", {}, t(name)))));
      [step.without, step.with, step.seen].forEach((path, index) => api.picture(`jobs/${id}/${path}`).then((link) => { trio.querySelectorAll("img")[index].src = link; }).catch(() => {}));
    } else if (file) api.picture(`jobs/${id}/${file}`).then((link) => { picture.src = link; picture.hidden = !trio.hidden; }).catch(() => {});
    caption.textContent = step ? [t("stepOf", { step: step.step + 1, total: step.steps ?? total }), step.t !== undefined && `t ${number(step.t)}`, step.change !== undefined && t("promptChanges", { share: number(100 * step.change, 1) }), step.score !== undefined && t("scoreOf", { score: number(step.score, 3) })].filter(Boolean).join(" · ")
      : finished ? [finished.prompt, finished.seed !== undefined ? `seed ${finished.seed}` : "", finished.score !== undefined ? t("scoreOf", { score: number(finished.score, 3) }) : ""].filter(Boolean).join(" · ") : "";
    const climbs = steps[0]?.score !== undefined, values = steps.map((each) => climbs ? each.score : 100 * (each.change ?? 0));
    curve.replaceChildren(...(total > 1 && (climbs || guided) ? [spark(values, step ? at : total - 1, climbs ? t("scoreCurve") : t("changeCurve"), (value) => climbs ? number(value, 2) : `${number(value, 0)}%`)] : []));
    scrub.setAttribute("aria-valuetext", caption.textContent);
    const every = Math.max(1, Math.ceil(total / 14));
    strip.replaceChildren(...steps.map((each, index) => [each, index]).filter(([, index]) => index % every === 0 || index === total - 1).map(([each, index]) =>
      h("button", { type: "button", "aria-label": t("stepOf", { step: each.step + 1, total: each.steps ?? total }), "aria-pressed": String(index === at), onclick: () => { follow = false; shown.step = index; draw(); } }, image(`jobs/${id}/${each.seen}`, { className: "pixel" }))));
    const many = results.length > 1 || images.length > 1;
    grid.replaceChildren(...(many ? (results.length > 1 ? results : images).map((each, index) => {
      const file = each.file ?? each[each.length - 1]?.seen;
      return h("figure", {}, h("button", { type: "button", "aria-label": t("result") + ` ${index + 1}`, "aria-pressed": String(index === shown.image), onclick: () => { shown = { ...shown, image: index }; follow = true; draw(); } }, file && image(`jobs/${id}/${file}`, { className: "pixel" })),
        h("figcaption", {}, each.seed !== undefined ? `seed ${each.seed}` : `${t("result")} ${number(index + 1)}`));
    }) : []));
  }
  return {
    place,
    heard(events) {
      for (const event of events) {
        if (event.kind === "step") {
          while (images.length <= event.image) images.push([]);
          images[event.image].push(event);
          if (follow) shown.image = event.image;
        } else if (event.kind === "images") {
          results = event.images;
          const tried = results[0]?.tried;
          if (tried) {
            const best = tried.findIndex((each) => each.kept);
            stages.replaceChildren(h("h2", {}, t("stages")), ...tried.map((each, index) => h("div.item", {}, h("div.row.between", {},
              h("strong.small", { lang: "en" }, `${index + 1}. ${each.how}${each.guidance !== "none" ? ` (${each.guidance})` : ""}`), index === best && h("span.chip", {}, t("result"))),
              h("p.quiet.number", { lang: "en", dir: "ltr" }, Object.entries(each.probabilities).map(([name, value]) => `${name} ${value.toFixed(2)}`).join(" · ")))));
            message.textContent = results[0].whole ? t("whole") : t("notWhole");
          }
          const notes = results.flatMap((each) => each.notes ?? []);
          if (notes.length) message.textContent = [message.textContent, ...new Set(notes)].join(" ");
          shown.image = 0; follow = true;
        } else if (event.kind === "progress" && event.total) share.to(event.done / event.total);
      }
      draw();
    },
    jobs(list) {
      const job = list.find((each) => each.id === id);
      if (!job) return;
      line.say(job.line);
      const runs = ["running", "waiting"].includes(job.state);
      halt.hidden = !runs; share.hidden = !runs;
      if (job.message) message.textContent = job.message;
      else if (runs && !images.length) message.textContent = t(job.state) + " …";
      else if (runs || (message.textContent.endsWith("…"))) message.textContent = "";
    },
  };
}
