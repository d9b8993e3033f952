import * as api from "../api.js";
import { t, number } from "../i18n.js";
import { h, head, empty, image, command, field, select, tries, tray } from "../ui.js";

const held = { model: "detailclip-mini", words: "", like: "" };

export function show(place, shared) {
  const models = shared.models("encoder");
  let turn = 0, titles = new Map();
  const stage = h("div.card"), line = command("");
  const words = field(t("query"), { type: "search", value: held.words, placeholder: t("queryHint"), dir: "auto" });
  const shelf = tray({ chosen: () => held.like, pick: (one) => { held.like = one.id; run(); }, changed: (all) => { titles = new Map(all.map((one) => [one.id, one])); if (!all.length) blank(); else if (!stage.childElementCount) blank(); } });
  const twelve = h("button", { type: "button", onclick: tries(async () => {
    twelve.disabled = true;
    try { for (let index = 0; index < 12; index++) await api.post("scenes", { preset: "easy", number: 100 + index }); await shelf.refresh(); } finally { twelve.disabled = false; }
  }) }, t("twelve"));
  const run = tries(async () => {
    const mine = ++turn, pictures = shelf.all().map((one) => one.id);
    if (!pictures.length || (!held.like && !held.words)) return;
    stage.setAttribute("aria-busy", "true");
    try {
      const { nearest, line: spelled } = await api.post("ask/search", { model: held.model, pictures, words: held.words, like: held.like });
      if (mine !== turn) return;
      const what = held.like ? titles.get(held.like)?.caption || titles.get(held.like)?.title || t("thePicture") : held.words;
      line.say(spelled);
      stage.replaceChildren(h("h2", { dir: "auto" }, t("nearest", { what })), h("div.grid", {}, nearest.slice(0, 60).map(([name, score]) => h("figure", {},
        h("button", { type: "button", "aria-label": `${t("like")}: ${titles.get(name)?.caption ?? ""}`, onclick: () => { held.like = name; shelf.show(); run(); } }, image(`pictures/${name}.png`)),
        h("figcaption.number", { dir: "auto" }, `${number(score, 2)} · ${titles.get(name)?.caption || titles.get(name)?.title || ""}`)))), h("div.fields", {}, h("span.label", {}, t("command")), line));
      window.studioFound = nearest;
    } finally { stage.removeAttribute("aria-busy"); }
  });
  function blank() { stage.replaceChildren(h("div.view", {}, empty("search", t("searchEmpty"), t("searchEmptyHint")))); }
  place.append(head("search"), h("div.desk", {}, h("form.card", { onsubmit: (event) => { event.preventDefault(); held.words = words.field.value.trim(); held.like = ""; shelf.show(); run(); } },
    words, select(t("model"), models.map((name) => [name, name]), held.model, (name) => { held.model = name; run(); }), h("button.main", { type: "submit" }, t("searchButton")), shelf, twelve), stage));
  blank();
  return () => { turn++; };
}
