import * as api from "../api.js";
import { t, number } from "../i18n.js";
import { h, head, empty, image, command, field, select, tries, tray } from "../ui.js";
import { placed, region } from "../region.js";

const held = { model: "detailclip-mini", words: "", like: "", region: null };

export function show(place, shared) {
  const models = shared.models("encoder");
  let turn = 0, titles = new Map(), query = null;
  const stage = h("div.card"), asked = h("div.fields"), answered = h("div.fields"), line = command("");
  const words = field(t("query"), { type: "search", value: held.words, placeholder: t("queryHint"), dir: "auto" });
  const like = (name) => { held.like = name; held.region = null; shelf.show(); ask(); run(); };
  const shelf = tray({ chosen: () => held.like, pick: (one) => like(one.id), changed: (all) => { titles = new Map(all.map((one) => [one.id, one])); if (!all.length || !stage.childElementCount) blank(); } });
  const twelve = h("button", { type: "button", onclick: tries(async () => {
    twelve.disabled = true;
    try { for (let index = 0; index < 12; index++) await api.post("scenes", { preset: "easy", number: 100 + index }); await shelf.refresh(); } finally { twelve.disabled = false; }
  }) }, t("twelve"));
  const title = (name) => titles.get(name)?.caption || titles.get(name)?.title || "";
  // The picture that is looked for; it stays while its region is moved, so that the keyboard's place is not lost.
  function ask() {
    query?.close(); query = null;
    if (!held.like) { asked.replaceChildren(); return; }
    query = region(`pictures/${held.like}.png`, title(held.like), (part) => { held.region = part; run(); });
    asked.replaceChildren(h("div.query", {}, query.place, h("p.quiet", {}, t("regionHelp"))));
  }
  const run = tries(async () => {
    const mine = ++turn, pictures = shelf.all().map((one) => one.id), part = held.like ? held.region : null;
    if (!pictures.length || (!held.like && !held.words)) return;
    if (asked.parentNode !== stage) stage.replaceChildren(asked, answered); // only then: what is moved loses its focus
    stage.setAttribute("aria-busy", "true");
    try {
      const { nearest, boxes, line: spelled } = await api.post("ask/search", { model: held.model, pictures, words: held.words, like: held.like, region: part });
      if (mine !== turn) return;
      const what = held.like ? title(held.like) || t("thePicture") : held.words;
      line.say(spelled);
      answered.replaceChildren(h("h2", { dir: "auto" }, part ? t("nearestRegion") : t("nearest", { what })), h("div.grid", {}, nearest.slice(0, 60).map(([name, score]) => h("figure", {},
        h("button", { type: "button", "aria-label": `${t("like")}: ${title(name)}`, onclick: () => like(name) }, boxes ? placed(`pictures/${name}.png`, boxes[name]) : image(`pictures/${name}.png`)),
        h("figcaption.number", { dir: "auto" }, `${number(score, 2)} · ${title(name)}`)))), h("div.fields", {}, h("span.label", {}, t("command")), line));
      window.studioFound = nearest; window.studioPlaces = boxes ?? null;
    } finally { if (mine === turn) stage.removeAttribute("aria-busy"); }
  });
  function blank() { stage.replaceChildren(h("div.view", {}, empty("search", t("searchEmpty"), t("searchEmptyHint")))); }
  place.append(head("search"), h("div.desk", {}, h("form.card", { onsubmit: (event) => { event.preventDefault(); held.words = words.field.value.trim(); like(""); } },
    words, select(t("model"), models.map((name) => [name, name]), held.model, (name) => { held.model = name; run(); }), h("button.main", { type: "submit" }, t("searchButton")), shelf, twelve), stage));
  held.region = null;
  blank();
  return () => { turn++; query?.close(); };
}
