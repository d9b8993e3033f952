// The same scenes at each checkpoint of a run, behind a slider. Images are made once and stay when the checkpoint is gone.
import * as api from "./api.js";
import { t, number } from "./i18n.js";
import { h, command, select, tabs } from "./ui.js";

const held = { kind: "attention", open: true, run: "" };
const FIXED = ["image", "truth"];

export function stills() {
  const made = new Map(), refused = new Set();
  let runs = [], steps = [], at = -1, follow = true, working = false, gone = false, shape = "";
  const which = h("div.grow"), kinds = h("div"), grid = h("div.stills"), line = command(""), message = h("p.quiet", { lang: "en", dir: "ltr" });
  const out = h("output.number"), waits = h("p.quiet", { role: "status" }, t("stillsWait"));
  const slider = h("input", { type: "range", min: 0, max: 0, value: 0, "aria-label": t("checkpoint"), oninput: () => { at = Number(slider.value); follow = at === steps.length - 1; draw(); } });
  const place = h("details", { open: held.open, hidden: true, ontoggle: () => { held.open = place.open; fetchAll(); } }, h("summary", {}, h("h2", {}, t("stillsTitle"))),
    h("div.fields", {}, h("p.quiet", {}, t("stillsHint")), which, kinds, h("label", {}, h("span.row.between", {}, t("checkpoint"), out), slider), waits, grid, message, h("div.fields", {}, h("span.label", {}, t("command")), line)));
  const key = (step) => `${held.run}:${step}`;
  const usable = (run) => run.steps.filter((step) => !refused.has(`${run.name}:${step}`));

  // Runs that are shown, each with the steps that it has; called whenever these may have changed.
  function show(list) {
    runs = list.filter((run) => usable(run).length);
    place.hidden = !runs.length;
    if (!runs.length) return;
    if (!runs.some((run) => run.name === held.run)) held.run = runs[0].name;
    const names = runs.map((run) => run.name);
    if (which.dataset.names !== names.join()) {
      which.dataset.names = names.join();
      which.replaceChildren(...(names.length > 1 ? [select(t("run"), names.map((name) => [name, name]), held.run, (name) => { held.run = name; at = -1; follow = true; show(runs); })] : []));
    }
    const before = steps[at];
    steps = usable(runs.find((run) => run.name === held.run));
    at = follow || !steps.includes(before) ? steps.length - 1 : steps.indexOf(before);
    draw(); fetchAll();
  }
  // One after the other, the shown one first: whoever answers does one thing at a time.
  async function fetchAll() {
    if (working || !place.open || place.hidden) return;
    working = true;
    try {
      for (;;) {
        const step = [steps[at], ...steps.toReversed()].find((each) => !made.has(key(each)) && !refused.has(key(each)));
        if (step === undefined || gone || !place.open || !place.isConnected) break;
        const name = key(step);
        try { made.set(name, await api.post("ask/checkpoint", { run: held.run, step })); message.textContent = ""; } catch (error) {
          if (![400, 404].includes(error.status)) break;
          refused.add(name); message.textContent = error.message;
          const shown = steps[at];
          steps = steps.filter((each) => !refused.has(key(each)));
          at = steps.includes(shown) ? steps.indexOf(shown) : steps.length - 1;
        }
        if (!gone) draw();
      }
    } finally { working = false; }
  }
  function draw() {
    slider.max = Math.max(steps.length - 1, 0); slider.value = at;
    const step = steps[at], known = made.get(key(step));
    out.textContent = step === undefined ? "" : step === 0 ? t("untrained") : t("atStep", { step });
    slider.setAttribute("aria-valuetext", out.textContent);
    waits.hidden = Boolean(known) || step === undefined;
    if (!known) { grid.setAttribute("aria-busy", "true"); return; }
    grid.removeAttribute("aria-busy");
    line.say(known.line);
    const changing = known.kinds.filter((kind) => !FIXED.includes(kind));
    if (!changing.includes(held.kind)) held.kind = changing[0];
    const truth = ["words", "found"].includes(held.kind) && known.kinds.includes("truth") ? "truth" : "image";
    const now = JSON.stringify([held.run, changing, known.captions, held.kind]);
    if (shape !== now) {
      shape = now;
      kinds.replaceChildren(tabs(Object.fromEntries(changing.map((kind) => [kind, t(`still-${kind}`)])), held.kind, (kind) => { held.kind = kind; draw(); }, t("stillsTitle")));
      grid.replaceChildren(...known.captions.map((caption) => h("figure", {}, h("div.pair", {}, h("img", { alt: t(`still-${truth}`) }), h("img", { alt: t(`still-${held.kind}`) })), h("figcaption", { dir: "auto" }, caption))));
    }
    // Pictures stay in their places while their pixels change, so that nothing flickers under the slider.
    const turn = `${step} ${held.kind}`;
    grid.dataset.shown = "";
    Promise.all([...grid.children].flatMap((figure, index) => [truth, held.kind].map(async (kind, side) => {
      const image = figure.querySelectorAll("img")[side], link = await api.picture(`${known.path}/${index}-${kind}.png`);
      if (`${steps[at]} ${held.kind}` !== turn) return;
      if (image.src !== link) image.src = link;
      if (side) image.alt = `${t(`still-${kind}`)}, ${out.textContent}: ${known.captions[index]}`;
      image.className = ["image", "truth", "words", "reconstruction"].includes(kind) ? "pixel" : "";
    }))).then(() => { if (`${steps[at]} ${held.kind}` === turn) grid.dataset.shown = String(step); }).catch(() => {});
  }
  return { place, show, close: () => { gone = true; } };
}
