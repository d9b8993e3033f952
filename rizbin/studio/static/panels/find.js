import * as api from "../api.js";
import { t, number } from "../i18n.js";
import { h, head, empty, image, command, field, select, tries, tray, heat, loaded } from "../ui.js";
import { everywhere } from "../everywhere.js";
import { tint } from "../masks.js";

const held = { picture: null, phrases: "", distractors: "", model: "detector-mini", masks: "" };
const INK = ["#0b7a75", "#c2410c", "#6d28d9", "#b91c1c", "#1d4ed8", "#a16207", "#be185d", "#15803d"];
const SVG = "http://www.w3.org/2000/svg";

export function show(place, shared) {
  let titles = new Map(), answer = null, boxes = [], thresholds = {}, chosen = -1, turn = 0, why = null, cut = new Map(), soon = 0;
  const lines = (text) => text.split("\n").map((each) => each.trim()).filter(Boolean);
  const phrases = field(t("phrases"), { rows: 4, value: held.phrases, placeholder: t("phrasesHint"), dir: "auto", oninput: () => { held.phrases = phrases.field.value; } });
  const distractors = field(t("distractors"), { rows: 2, value: held.distractors, dir: "auto", oninput: () => { held.distractors = distractors.field.value; } });
  const stage = h("div.card"), line = command("");
  const segmenters = shared.models("segmenter");
  if (!segmenters.includes(held.masks)) held.masks = "";
  const masks = segmenters.length ? select(t("masksBy"), [["", t("none")], ...segmenters.map((name) => [name, name])], held.masks, (name) => { held.masks = name; cut = new Map(); if (answer && svg) { draw(); tell(); } }) : h("p.help", {}, t("masksHint"));
  const all = everywhere((id) => {
    if (!titles.has(id)) return;
    held.picture = id; shelf.show(); scrollTo({ top: 0, behavior: "smooth" });
    if (lines(held.phrases).length) find(); else start();
  });
  const shelf = tray({ chosen: () => held.picture, pick: (one) => { held.picture = one.id; suggest(one); if (answer && held.phrases) find(); else start(); }, changed: (all) => {
    titles = new Map(all.map((one) => [one.id, one]));
    if (!titles.has(held.picture)) held.picture = all[0]?.id ?? null;
    shelf.show(); if (held.picture) suggest(titles.get(held.picture)); if (!answer) start();
  } });
  // A scene's caption names what is in it: offered where nothing has been typed.
  function suggest(scene) {
    if (held.typed || !scene?.caption) return;
    const names = [...scene.caption.matchAll(/\b(an?) ([a-z][a-z -]*?)(?=,| and | on | in | with | left | right | above | below |$)/g)].map((match) => `${match[1]} ${match[2]}`).filter((each) => !/scene|picture|drawing|photo/.test(each));
    if (names.length) { phrases.field.value = held.phrases = names.join("\n"); }
  }
  phrases.field.addEventListener("input", () => { held.typed = Boolean(phrases.field.value.trim()); });
  const question = () => ({ model: held.model, picture: held.picture, phrases: lines(held.phrases), distractors: lines(held.distractors) });
  const find = tries(async (event) => {
    event?.preventDefault();
    if (!held.picture || !lines(held.phrases).length) { phrases.field.focus(); return; }
    const mine = ++turn;
    button.disabled = true; stage.setAttribute("aria-busy", "true");
    try {
      const got = await api.post("ask/find", question());
      if (mine !== turn) return;
      answer = { ...got, question: question() };
      thresholds = Object.fromEntries(got.names.map((name) => [name, Math.round(got.threshold * 100) / 100]));
      why = null; cut = new Map();
      await build(); await choose();
    } finally { button.disabled = false; stage.removeAttribute("aria-busy"); }
  });
  const button = h("button.main", { type: "submit" }, t("findButton"));
  place.append(head("find"), h("div.desk", {}, h("form.card", { onsubmit: find }, shelf, phrases, h("details", {}, h("summary", {}, t("more")), h("div.fields", {}, distractors, select(t("model"), shared.models("detector").map((name) => [name, name]), held.model, (name) => { held.model = name; }), masks)), button,
    h("button", { type: "button", onclick: tries(async () => {
      await api.post("jobs", { command: "detect", panel: "find", title: lines(held.phrases).join(", "), given: settings(shelf.all().map((one) => one.id)) });
    }) }, t("all"))), h("div.stage", {}, stage, all.place)));
  shared.onJobs((jobs) => all.show(jobs));

  function start() {
    const known = held.picture && titles.get(held.picture);
    stage.replaceChildren(known ? h("div.view", {}, h("div.boxes", {}, image(`pictures/${held.picture}.png`, { alt: known.caption || known.title }))) : h("div.view", {}, empty("find", t("findEmpty"), t("findEmptyHint"))), known ? h("p.quiet", {}, t("findEmptyHint")) : "");
  }
  let svg, label, count, map, sliders, cutout;
  async function build() {
    const known = titles.get(held.picture), [width, height] = answer.size;
    svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("tabindex", "0");
    svg.setAttribute("role", "application");
    svg.setAttribute("aria-label", t("boxHelp"));
    cutout = h("canvas", { width, height, hidden: true, role: "img", "aria-label": t("masksOf") });
    map = h("canvas", { width: 400, height: Math.round(400 * height / width), hidden: true });
    count = h("span.quiet.number");
    label = select(t("forPhrase"), answer.names.map((name) => [name, name]), answer.names[0]);
    sliders = h("div.list", {}, answer.names.map((name, index) => {
      const verdict = answer.verdicts.find((each) => each.name === name) ?? { state: "unsure", probability: 0 };
      const out = h("output", {}, number(thresholds[name], 2));
      const input = h("input", { type: "range", min: 0.01, max: 1, step: 0.01, value: thresholds[name], "aria-label": `${t("threshold")}: ${name}`, oninput: () => { thresholds[name] = Number(input.value); out.textContent = number(thresholds[name], 2); choose(); } });
      const swatch = h("span.swatch"); swatch.style.background = INK[index % INK.length];
      return h("div.slider", {}, h("span.row", { dir: "auto" }, swatch, name), h("span.chip." + verdict.state, {}, `${t(verdict.state)} ${number(verdict.probability, 2)}`), input, out);
    }));
    const reasons = h("div.list");
    stage.replaceChildren(h("div.view", {}, h("div.boxes", {}, image(`pictures/${held.picture}.png`, { alt: known?.caption || known?.title || "" }), cutout, map, svg)),
      h("div.row.between", {}, count, h("div.row", {},
        h("button.tiny", { type: "button", onclick: tries(async (event) => { event.target.disabled = true; try { why = (await api.post("ask/why", { model: held.model, picture: held.picture, phrases: lines(held.phrases) })).boxes; explain(reasons); } finally { event.target.disabled = false; } }) }, t("why")),
        h("button.tiny", { type: "button", onclick: tries(save) }, t("export")))),
      sliders, h("p.quiet", {}, t("boxHelp")), label, reasons, ...answer.notes.map((text) => h("p.quiet", { lang: "en", dir: "ltr" }, text)), h("div.fields", {}, h("span.label", {}, t("command")), line));
    listen();
  }
  async function choose() {
    const mine = ++turn;
    const got = await api.post("ask/choose", { ...answer.question, thresholds });
    if (mine !== turn) return;
    boxes = [...got.boxes, ...boxes.filter((each) => each.hand && each.picture === held.picture && answer.names.includes(each.name))];
    chosen = -1;
    draw(); tell();
  }
  // What the command is given: the sliders' thresholds too, where they are those of these phrases.
  function settings(images) {
    const given = { images, find: lines(held.phrases), model: held.model };
    if (answer && answer.question.phrases.join("\n") === lines(held.phrases).join("\n")) {
      given.threshold = Math.round(answer.threshold * 100) / 100;
      const own = Object.entries(thresholds).filter(([, value]) => value !== given.threshold).map(([name, value]) => `${name}=${value}`);
      if (own.length) given.per_class = own;
    }
    if (lines(held.distractors).length) given.distractor = lines(held.distractors);
    if (held.masks) given.masks = held.masks;
    return given;
  }
  async function tell() {
    line.say((await api.post("check", { command: "detect", given: settings([held.picture]) })).line);
  }
  function element(name, attributes) {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  }
  function draw() {
    const [width] = answer.size, thick = width / 170;
    svg.replaceChildren(...boxes.flatMap((each, index) => {
      const [left, top, right, bottom] = each.box, ink = INK[answer.names.indexOf(each.name) % INK.length];
      const frame = element("rect", { x: left, y: top, width: Math.max(right - left, 0), height: Math.max(bottom - top, 0), fill: "transparent", stroke: ink, "stroke-width": index === chosen ? thick * 2 : thick, "data-index": index, rx: thick });
      const text = element("text", { x: left + thick, y: top > thick * 9 ? top - thick * 2 : top + thick * 8, "font-size": thick * 7, fill: ink, stroke: "#fff", "stroke-width": thick * 1.6, "paint-order": "stroke", "font-weight": 650 });
      text.textContent = `${each.name} ${each.hand ? "✎" : each.score.toFixed(2)}`;
      const corners = index === chosen ? [[left, top], [right, top], [left, bottom], [right, bottom]].map(([x, y], corner) => element("circle", { cx: x, cy: y, r: thick * 3, fill: "#fff", stroke: ink, "stroke-width": thick, "data-index": index, "data-corner": corner })) : [];
      return [frame, text, ...corners];
    }));
    count.textContent = t("boxesCount", { n: boxes.length });
    window.studioBoxes = boxes;
    cutOut();
  }
  const key = (box) => box.map((side) => Math.round(side * 100) / 100).join();
  // Masks of the boxes that stand still: those that are known at once, others after one pass.
  function cutOut() {
    clearTimeout(soon);
    cutout.hidden = !held.masks;
    if (!held.masks) return;
    const known = boxes.filter((each) => cut.has(key(each.box)));
    tint(cutout, known.map((each) => ({ mask: cut.get(key(each.box)), ink: INK[answer.names.indexOf(each.name) % INK.length] })));
    cutout.dataset.masks = known.length;
    const store = cut, cutter = held.masks, fresh = boxes.map((each) => key(each.box)).filter((each) => !cut.has(each));
    if (fresh.length) soon = setTimeout(tries(async () => {
      const { masks } = await api.post("ask/masks", { masks: cutter, picture: held.picture, boxes: fresh.map((each) => each.split(",").map(Number)) });
      if (store !== cut) return;
      fresh.forEach((each, index) => cut.set(each, masks[index]));
      draw();
    }), 200);
  }
  function listen() {
    let drag = null;
    const at = (event) => { const box = svg.getBoundingClientRect(); return [(event.clientX - box.left) / box.width * answer.size[0], (event.clientY - box.top) / box.height * answer.size[1]].map((value, axis) => Math.min(Math.max(value, 0), answer.size[axis])); };
    svg.addEventListener("pointerdown", (event) => {
      const { index, corner } = event.target.dataset ?? {}, [x, y] = at(event);
      svg.setPointerCapture(event.pointerId); svg.focus();
      if (corner !== undefined) drag = { index: Number(index), corner: Number(corner) };
      else if (index !== undefined) { chosen = Number(index); drag = null; draw(); }
      else { boxes.push({ name: label.field.value, score: 1, box: [x, y, x, y], hand: true, picture: held.picture }); chosen = boxes.length - 1; drag = { index: chosen, corner: 3, fresh: true }; }
    });
    svg.addEventListener("pointermove", (event) => {
      if (!drag) return;
      const [x, y] = at(event), box = boxes[drag.index].box;
      box[drag.corner % 2 ? 2 : 0] = x; box[drag.corner > 1 ? 3 : 1] = y;
      boxes[drag.index].hand = true; boxes[drag.index].picture = held.picture;
      draw();
    });
    svg.addEventListener("pointerup", () => {
      if (!drag) return;
      const each = boxes[drag.index], [a, b, c, d] = each.box;
      each.box = [Math.min(a, c), Math.min(b, d), Math.max(a, c), Math.max(b, d)].map((value) => Math.round(value * 100) / 100);
      if (drag.fresh && (each.box[2] - each.box[0] < 3 || each.box[3] - each.box[1] < 3)) { boxes.splice(drag.index, 1); chosen = -1; }
      drag = null; draw();
    });
    svg.addEventListener("keydown", (event) => {
      if (["Delete", "Backspace"].includes(event.key) && chosen >= 0) { boxes.splice(chosen, 1); chosen = -1; draw(); event.preventDefault(); }
      if (["ArrowDown", "ArrowRight"].includes(event.key) && boxes.length) { chosen = (chosen + 1) % boxes.length; draw(); event.preventDefault(); }
      if (["ArrowUp", "ArrowLeft"].includes(event.key) && boxes.length) { chosen = (chosen - 1 + boxes.length) % boxes.length; draw(); event.preventDefault(); }
    });
  }
  async function explain(reasons) {
    const picture = await loaded(`pictures/${held.picture}.png`);
    const see = (values) => { map.hidden = false; heat(map, picture, values, { opacity: 0.75 }); };
    const views = (each) => h("div.row", {}, h("button.tiny", { type: "button", onclick: () => see(each.map) }, t("look")),
      ...each.layers.map((layer, index) => h("button.tiny", { type: "button", title: t("wordLayers"), onclick: () => see(layer) }, t("wordLayer", { n: number(index + 1) }))));
    reasons.replaceChildren(h("h2", {}, t("looksLike")), ...why.map((each) => h("div.item", {}, h("div.row.between", {}, h("strong", { dir: "auto" }, `${each.name} ${number(each.score, 2)}`), views(each)),
      h("p.quiet.number", { lang: "en", dir: "ltr" }, each.words.map(([word, score]) => `${word} ${score.toFixed(2)}`).join(" · ")),
      h("p.quiet", {}, each.honest ? t("honest", { without: number(each.without, 2), elsewhere: number(each.elsewhere, 2) }) : t("dishonest")))));
    if (why.length) see(why[0].map);
  }
  async function save() {
    const known = titles.get(held.picture);
    const { coco } = await api.post("ask/coco", { picture: held.picture, title: known?.title ?? held.picture, names: answer.names, boxes: boxes.map(({ name, score, box }) => ({ name, score, box: key(box).split(",").map(Number) })), size: answer.size, masks: held.masks });
    const link = URL.createObjectURL(new Blob([JSON.stringify(coco, null, 1)], { type: "application/json" }));
    h("a", { href: link, download: "found.json" }).click();
    setTimeout(() => URL.revokeObjectURL(link), 5000);
  }
  start();
  return () => { turn++; clearTimeout(soon); all.close(); };
}
