import * as api from "../api.js";
import { t, number } from "../i18n.js";
import { h, head, empty, command, tabs, field, select, tries, tray, heat, cells, loaded } from "../ui.js";

const held = { first: null, second: null, model: "detailclip-mini", mode: "similar", spot: null, words: "", layer: "-1" };
const SIDE = 400;

export function show(place, shared) {
  const models = shared.models("encoder");
  if (!models.includes(held.model)) held.model = models[0];
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
    h("div.card", {}, shelf, pair, select(t("model"), models.map((name) => [name, name]), held.model, (name) => { held.model = name; open(); })),
    h("div.card", {}, modes, h("div.row", {}, words, layer), stage, h("div.pair", {}, veil, limit), h("div.fields", {}, h("span.label", {}, t("command")), line))));

  const names = () => [held.first, held.second].filter(Boolean);
  const open = tries(async () => {
    const mine = ++turn;
    if (!held.first) { stage.replaceChildren(h("div.view", {}, empty("look", t("lookEmpty"), t("lookEmptyHint")))); return; }
    stage.setAttribute("aria-busy", "true");
    const [answer, ...images] = await Promise.all([api.post("ask/look", { model: held.model, pictures: names() }), ...names().map((name) => loaded(`pictures/${name}.png`))]);
    if (mine !== turn) return;
    facts = answer; pictures = images;
    const [rows, columns] = facts.grids[0];
    if (!held.spot || held.spot[0] >= rows || held.spot[1] >= columns) held.spot = [Math.floor(rows / 2), Math.floor(columns / 2)];
    await again();
  });
  const again = tries(async () => {
    if (!facts) return;
    const mine = ++turn, ask = { model: held.model, pictures: names() };
    words.hidden = held.mode !== "words"; layer.hidden = held.mode !== "attention";
    limit.hidden = !["similar", "words"].includes(held.mode);
    let made;
    if (held.mode === "similar") made = { maps: (await api.post("ask/similar", { ...ask, row: held.spot[0], column: held.spot[1] })).maps };
    if (held.mode === "attention") made = { heads: (await api.post("ask/attention", { ...ask, layer: Number(held.layer) })).heads };
    if (held.mode === "colors") made = { colors: (await api.post("ask/pca", ask)).colors };
    if (held.mode === "words") {
      const list = held.words.split(/[,،]/).map((word) => word.trim()).filter(Boolean);
      made = list.length ? { words: list, maps: (await api.post("ask/words", { ...ask, words: list })).maps } : { words: [], maps: names().map(() => []) };
    }
    if (mine !== turn) return;
    last = { ...made, mode: held.mode };
    build();
    tell();
  });
  let spots = [];
  // Canvases stay while only their colors change, so that the keyboard's place is not lost.
  function build() {
    const key = JSON.stringify([held.mode, names(), held.model, last.words ?? last.heads?.map((heads) => heads.length) ?? 0]);
    if (stage.dataset.key !== key) {
      stage.dataset.key = key;
      spots = [];
      stage.removeAttribute("aria-busy");
      const canvas = (index, label, press) => {
        const [high, wide] = facts.sizes[index], scale = SIDE / Math.max(high, wide);
        const made = h("canvas", { width: Math.round(wide * scale), height: Math.round(high * scale), role: "img", "aria-label": label, tabIndex: press ? 0 : -1 });
        if (press) press(made);
        return made;
      };
      const groups = names().map((name, index) => {
        if (held.mode === "attention") {
          const heads = last.heads[index];
          return h("div.heads", {}, [t("mean"), ...heads.map((_, head) => t("head", { n: head + 1 }))].map((label, head) => { const made = canvas(index, label); spots.push([made, index, head]); return h("figure", {}, made, h("figcaption", {}, label)); }));
        }
        if (held.mode === "words" && last.words.length) return h("div.heads", {}, last.words.map((word, number) => { const made = canvas(index, word); spots.push([made, index, number]); return h("figure", {}, made, h("figcaption", { dir: "auto" }, word)); }));
        const made = canvas(index, t(held.mode), held.mode === "similar" && index === 0 ? press : null);
        spots.push([made, index, 0]);
        return h("figure", {}, made);
      });
      stage.replaceChildren(h(held.mode === "attention" || held.mode === "words" ? "div.fields" : "div.duo", {}, groups));
    }
    paint();
  }
  function press(canvas) {
    canvas.classList.add("press");
    canvas.addEventListener("click", (event) => {
      const box = canvas.getBoundingClientRect(), [rows, columns] = facts.grids[0];
      held.spot = [Math.min(rows - 1, Math.floor((event.clientY - box.top) / box.height * rows)), Math.min(columns - 1, Math.floor((event.clientX - box.left) / box.width * columns))];
      again();
    });
    canvas.addEventListener("keydown", (event) => {
      const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
      if (!moves) return;
      event.preventDefault();
      held.spot = held.spot.map((value, axis) => Math.min(Math.max(value + moves[axis], 0), facts.grids[0][axis] - 1));
      again();
    });
  }
  function paint() {
    if (!last) return;
    for (const [canvas, index, part] of spots) {
      const picture = pictures[index];
      if (last.mode === "similar") heat(canvas, picture, last.maps[index], { opacity, low: 0, high: 1, mark: index === 0 ? held.spot : null, threshold: threshold || undefined });
      else if (last.mode === "attention") {
        const heads = last.heads[index];
        heat(canvas, picture, part ? heads[part - 1] : heads[0].map((row, y) => row.map((_, x) => heads.reduce((sum, head) => sum + head[y][x], 0) / heads.length)), { opacity });
      } else if (last.mode === "colors") cells(canvas, picture, last.colors[index], opacity);
      else if (last.maps[index].length) {
        const flat = last.maps.flat(3), low = Math.min(...flat), high = Math.max(...flat);
        heat(canvas, picture, last.maps[index][part], { opacity, low, high, threshold: threshold ? low + threshold * (high - low) : undefined });
      } else heat(canvas, picture, [[0]], { opacity: 0 });
    }
    // For those who script the page, and its tests.
    window.studioLook = { ...last, spot: held.spot, pictures: names(), at: performance.now() };
  }
  async function tell() {
    const what = { similar: "patch", attention: "attention", colors: "pca", words: "words" }[held.mode], [rows, columns] = facts.grids[0];
    const given = { model: held.model, images: names() };
    if (what === "patch") given.points = [[(held.spot[1] + 0.5) / columns, (held.spot[0] + 0.5) / rows].map((value) => Math.round(value * 1000) / 1000)];
    if (what === "attention" && held.layer !== "-1") given.layer = Number(held.layer);
    if (what === "words") { if (!last.words.length) return; given.words = last.words; }
    line.say((await api.post("check", { command: `visualize ${what}`, given })).line);
  }
  open();
  return () => { turn++; };
}
