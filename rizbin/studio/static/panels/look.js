import * as api from "../api.js";
import { t } from "../i18n.js";
import { h, head, empty, command, tabs, field, select, tries, tray, heat, cells, loaded } from "../ui.js";

const held = { first: null, second: null, model: "detailclip-mini", beside: "", mode: "similar", spot: null, words: "", layer: "-1" };
const SIDE = 400;

export function show(place, shared) {
  const models = shared.models("encoder");
  if (!models.includes(held.model)) held.model = models[0];
  if (!models.includes(held.beside)) held.beside = "";
  let facts = null, pictures = [], turn = 0, opacity = 0.65, threshold = 0, last = null;
  const stage = h("div.stage"), line = command("");
  const shelf = tray({ chosen: () => held.first, second: () => held.second, pick: (one, shift) => {
    if (shift || pair.field.checked && held.first && one.id !== held.first) held.second = held.second === one.id ? null : one.id;
    else { held.first = one.id; if (held.second === one.id) held.second = null; }
    open();
  }, changed: (all) => {
    for (const which of ["first", "second"]) if (!all.some((one) => one.id === held[which])) held[which] = null;
    if (!held.first && all.length) { held.first = all[0].id; shelf.show(); open(); }
  } });
  const pair = field(t("pickSecond"), { type: "checkbox", checked: Boolean(held.second), onchange: () => { if (!pair.field.checked) { held.second = null; shelf.show(); open(); } } });
  pair.className = "check"; pair.prepend(pair.field);
  const words = field(t("whichWords"), { type: "text", value: held.words, dir: "auto", placeholder: "octopus, elephant", onchange: () => { held.words = words.field.value; again(); } });
  const layer = select(t("layer"), [["-1", "−1"], ["-2", "−2"], ["-3", "−3"], ["-4", "−4"]], held.layer, (value) => { held.layer = value; again(); });
  const veil = field(t("opacity"), { type: "range", min: 0, max: 1, step: 0.01, value: opacity, oninput: () => { opacity = Number(veil.field.value); paint(); } });
  const limit = field(t("threshold"), { type: "range", min: 0, max: 1, step: 0.01, value: 0, oninput: () => { threshold = Number(limit.field.value); paint(); } });
  const modes = tabs({ similar: t("similar"), attention: t("attention"), colors: t("colors"), words: t("words") }, held.mode, (mode) => { held.mode = mode; again(); }, t("look"));
  place.append(head("look"), h("div.desk", {},
    h("div.card", {}, shelf, pair, select(t("model"), models.map((name) => [name, name]), held.model, (name) => { held.model = name; open(); }),
      select(t("beside"), [["", t("none")], ...models.map((name) => [name, name])], held.beside, (name) => { held.beside = name; open(); })),
    h("div.card", {}, modes, h("div.row", {}, words, layer), stage, h("div.pair", {}, veil, limit), h("div.fields", {}, h("span.label", {}, t("command")), line))));

  const names = () => [held.first, held.second].filter(Boolean);
  const both = () => [held.model, ...(held.beside && held.beside !== held.model ? [held.beside] : [])];
  const open = tries(async () => {
    const mine = ++turn;
    if (!held.first) { stage.replaceChildren(h("div.view", {}, empty("look", t("lookEmpty"), t("lookEmptyHint")))); delete stage.dataset.key; return; }
    stage.setAttribute("aria-busy", "true");
    try {
      const images = Promise.all(names().map((name) => loaded(`pictures/${name}.png`)));
      const answers = [];
      for (const model of both()) answers.push(await api.post("ask/look", { model, pictures: names() }));
      const shown = await images;
      if (mine !== turn) return;
      facts = answers; pictures = shown;
    } finally { stage.removeAttribute("aria-busy"); }
    const [rows, columns] = facts[0].grids[0];
    if (!held.spot || held.spot[0] >= rows || held.spot[1] >= columns) held.spot = [Math.floor(rows / 2), Math.floor(columns / 2)];
    await again();
  });
  // The patch of a model's own grid that lies where the chosen one of the first model does.
  const spot = (view) => held.spot.map((value, axis) => Math.floor((value + 0.5) / facts[0].grids[0][axis] * facts[view].grids[0][axis]));
  async function answer(model, view) {
    const ask = { model, pictures: names() };
    if (held.mode === "similar") { const [row, column] = spot(view); return { maps: (await api.post("ask/similar", { ...ask, row, column })).maps }; }
    if (held.mode === "attention") return { heads: (await api.post("ask/attention", { ...ask, layer: Number(held.layer) })).heads };
    if (held.mode === "colors") return { colors: (await api.post("ask/pca", ask)).colors };
    const list = held.words.split(/[,،]/).map((word) => word.trim()).filter(Boolean);
    return list.length ? { words: list, maps: (await api.post("ask/words", { ...ask, words: list })).maps } : { words: [], maps: names().map(() => []) };
  }
  const again = tries(async () => {
    if (!facts) return;
    const mine = ++turn, mode = held.mode, made = [];
    words.hidden = mode !== "words"; layer.hidden = mode !== "attention";
    limit.hidden = !["similar", "words"].includes(mode);
    for (const [view, model] of both().entries()) made.push({ ...(await answer(model, view)), mode });
    if (mine !== turn) return;
    last = made;
    build();
    tell();
  });
  let spots = [];
  // Canvases stay while only their colors change, so that the keyboard's place is not lost.
  function build() {
    const key = JSON.stringify([held.mode, names(), both(), last.map((made) => made.words ?? made.heads?.map((heads) => heads.length) ?? 0)]);
    if (stage.dataset.key !== key) {
      stage.dataset.key = key;
      spots = [];
      const many = (view) => held.mode === "attention" || (held.mode === "words" && last[view].words.length);
      stage.replaceChildren(...both().map((model, view) => h("div.fields", {}, both().length > 1 && h("h2", { lang: "en" }, model),
        h(many(view) ? "div.fields" : "div.duo", {}, names().map((name, index) => shown(view, index))))));
    }
    paint();
  }
  function shown(view, index) {
    const canvas = (label, part, press) => {
      const [high, wide] = facts[view].sizes[index], scale = SIDE / Math.max(high, wide);
      const made = h("canvas", { width: Math.round(wide * scale), height: Math.round(high * scale), role: "img", "aria-label": label, tabIndex: press ? 0 : -1 });
      if (press) press(made);
      spots.push([made, view, index, part]);
      return made;
    };
    if (held.mode === "attention") return h("div.heads", {}, [t("mean"), ...last[view].heads[index].map((_, head) => t("head", { n: head + 1 }))].map((label, part) => h("figure", {}, canvas(label, part), h("figcaption", {}, label))));
    if (held.mode === "words" && last[view].words.length) return h("div.heads", {}, last[view].words.map((word, part) => h("figure", {}, canvas(word, part), h("figcaption", { dir: "auto" }, word))));
    return h("figure", {}, canvas(t(held.mode), 0, held.mode === "similar" && index === 0 && view === 0 ? press : null));
  }
  function press(canvas) {
    canvas.classList.add("press");
    canvas.addEventListener("click", (event) => {
      const box = canvas.getBoundingClientRect(), [rows, columns] = facts[0].grids[0];
      held.spot = [Math.min(rows - 1, Math.floor((event.clientY - box.top) / box.height * rows)), Math.min(columns - 1, Math.floor((event.clientX - box.left) / box.width * columns))];
      again();
    });
    canvas.addEventListener("keydown", (event) => {
      const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
      if (!moves) return;
      event.preventDefault();
      held.spot = held.spot.map((value, axis) => Math.min(Math.max(value + moves[axis], 0), facts[0].grids[0][axis] - 1));
      again();
    });
  }
  function paint() {
    if (!last) return;
    for (const [canvas, view, index, part] of spots) {
      const picture = pictures[index], made = last[view];
      if (made.mode === "similar") heat(canvas, picture, made.maps[index], { opacity, low: 0, high: 1, mark: index === 0 ? spot(view) : null, threshold: threshold || undefined });
      else if (made.mode === "attention") {
        const heads = made.heads[index];
        heat(canvas, picture, part ? heads[part - 1] : heads[0].map((row, y) => row.map((_, x) => heads.reduce((sum, head) => sum + head[y][x], 0) / heads.length)), { opacity });
      } else if (made.mode === "colors") cells(canvas, picture, made.colors[index], opacity);
      else if (made.maps[index].length) {
        const flat = made.maps.flat(3), low = Math.min(...flat), high = Math.max(...flat);
        heat(canvas, picture, made.maps[index][part], { opacity, low, high, threshold: threshold ? low + threshold * (high - low) : undefined });
      } else heat(canvas, picture, [[0]], { opacity: 0 });
    }
    // For those who script the page, and its tests.
    window.studioLook = { ...last[0], spot: held.spot, pictures: names(), at: performance.now() };
  }
  async function tell() {
    const what = { similar: "patch", attention: "attention", colors: "pca", words: "words" }[held.mode], [rows, columns] = facts[0].grids[0];
    const given = { model: held.model, images: names() };
    if (what === "patch") given.points = [[(held.spot[1] + 0.5) / columns, (held.spot[0] + 0.5) / rows].map((value) => Math.round(value * 1000) / 1000)];
    if (what === "attention" && held.layer !== "-1") given.layer = Number(held.layer);
    if (what === "words") { if (!last[0].words.length) return; given.words = last[0].words; }
    line.say((await api.post("check", { command: `visualize ${what}`, given })).line);
  }
  open();
  return () => { turn++; };
}
