// Pieces that all panels are made of.
import * as api from "./api.js";
import { t } from "./i18n.js";

// h("button.main", {onclick}, "text", child): an element; text is always text, never markup.
export function h(name, attributes = {}, ...children) {
  const [tag, ...classes] = name.split(".");
  const made = document.createElement(tag);
  if (classes.length) made.className = classes.join(" ");
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key in made && !["list", "form", "role"].includes(key) && !key.startsWith("aria")) made[key] = value;
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}
const PATHS = {
  draw: "M4 20l1-4L16 5l3 3L8 19l-4 1zM14 7l3 3", find: "M4 8V4h4M16 4h4v4M20 16v4h-4M8 20H4v-4M9 9h6v6H9z",
  look: "M2 12s4-7 10-7 10 7 10 7-4 7-10 7S2 12 2 12zM12 9a3 3 0 100 6 3 3 0 000-6z", search: "M10.5 4a6.5 6.5 0 100 13 6.5 6.5 0 000-13zM15.5 15.5L20 20",
  runs: "M4 4v16h16M7 15l4-5 3 3 5-7", learn: "M12 4L2 9l10 5 10-5-10-5zM6 11.5V16c2 2 10 2 12 0v-4.5", activity: "M3 12h4l3-7 4 14 3-7h4",
  moon: "M20 14A8 8 0 0110 4a8 8 0 1010 10z", globe: "M12 3a9 9 0 100 18 9 9 0 000-18zM3 12h18M12 3c3 3 3 15 0 18M12 3c-3 3-3 15 0 18",
};
export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  for (const [key, value] of Object.entries({ viewBox: "0 0 24 24", fill: "none", stroke: "currentColor", "stroke-width": "1.8", "stroke-linecap": "round", "stroke-linejoin": "round", "aria-hidden": "true" })) svg.setAttribute(key, value);
  const path = document.createElementNS(svg.namespaceURI, "path");
  path.setAttribute("d", PATHS[name] ?? "");
  svg.append(path);
  return svg;
}
export function note(text) {
  const shown = h("div", {}, text);
  document.getElementById("notes").append(shown);
  setTimeout(() => shown.remove(), 7000);
}
// Runs what a click asks for; what fails is said in the server's own sentence.
export const tries = (work) => async (...given) => { try { return await work(...given); } catch (error) { note(error.message); } };
export const head = (name) => h("div.head", {}, h("h1", {}, t(name)), h("p", {}, t(`${name}Lead`)));
export const empty = (name, title, hint, ...more) => h("div.empty", {}, icon(name), h("strong", {}, title), h("p", {}, hint), ...more);
export function image(path, attributes = {}) {
  const made = h("img", { alt: "", ...attributes });
  api.picture(path).then((link) => { made.src = link; }).catch(() => {});
  return made;
}
export function command(line) {
  const code = h("code", { tabIndex: 0, role: "group", "aria-label": t("command"), lang: "en" }, line);
  const button = h("button", { onclick: async () => {
    try { await navigator.clipboard.writeText(code.textContent); } catch { getSelection().selectAllChildren(code); }
    button.textContent = t("copied");
    setTimeout(() => { button.textContent = t("copy"); }, 1500);
  } }, t("copy"));
  return Object.assign(h("div.command", {}, code, button), { say: (text) => { code.textContent = text; } });
}
export function tabs(names, chosen, change, label) {
  const made = h("div.tabs", { role: "group", "aria-label": label });
  const show = (name) => made.replaceChildren(...Object.entries(names).map(([key, text]) =>
    h("button", { type: "button", "aria-pressed": String(key === name), onclick: () => { show(key); made.querySelector('[aria-pressed="true"]').focus(); change(key); } }, text)));
  show(chosen);
  return made;
}
export function select(label, options, value, change = () => {}) {
  const field = h("select", { onchange: () => change(field.value) }, options.map(([key, text]) => h("option", { value: key, selected: key === value }, text)));
  return Object.assign(h("label", {}, label, field), { field });
}
export function field(label, attributes, help = "") {
  const made = h(attributes.rows ? "textarea" : "input", attributes);
  return Object.assign(h("label", {}, label, made, help && h("span.help", { lang: "en", dir: "ltr" }, help)), { field: made });
}
export function bar() {
  const inside = h("div");
  return Object.assign(h("div.bar", { role: "progressbar", "aria-label": t("running"), "aria-valuemin": 0, "aria-valuemax": 100, "aria-valuenow": 0 }, inside), {
    to(share) { inside.style.inlineSize = `${share * 100}%`; this.setAttribute("aria-valuenow", Math.round(share * 100)); },
  });
}
// A small curve with the values at its ends, and a mark where one stands.
export function spark(values, at, label, spell) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg"), wide = 400, high = 56, edge = 5;
  const low = Math.min(...values), range = Math.max(...values) - low || 1;
  const x = (index) => edge + index / Math.max(values.length - 1, 1) * (wide - 2 * edge), y = (value) => high - edge - (value - low) / range * (high - 2 * edge);
  const part = (name, attributes) => { const made = document.createElementNS(svg.namespaceURI, name); for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value); svg.append(made); };
  svg.setAttribute("viewBox", `0 0 ${wide} ${high}`); svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `${label}: ${spell(values[0])} … ${spell(values.at(-1))}`);
  part("polyline", { points: values.map((value, index) => `${x(index)},${y(value)}`).join(" "), fill: "none", stroke: "currentColor", "stroke-width": 2, "stroke-linejoin": "round" });
  part("circle", { cx: x(at), cy: y(values[at]), r: 4.5, fill: "currentColor" });
  return h("figure.spark", {}, svg, h("figcaption", {}, `${label}: ${spell(values[0])} … ${spell(values.at(-1))}`));
}
// Numbers of patches as color over a picture.
const STOPS = [[10, 8, 60], [90, 20, 120], [200, 60, 80], [250, 150, 40], [255, 240, 160]];
function color(value) {
  const place = Math.min(Math.max(value, 0), 0.9999) * (STOPS.length - 1), low = Math.floor(place), share = place - low;
  return STOPS[low].map((part, index) => Math.round(part + (STOPS[low + 1][index] - part) * share));
}
export function heat(canvas, picture, values, { opacity = 0.65, low, high, mark, threshold } = {}) {
  const context = canvas.getContext("2d"), flat = values.flat();
  low ??= Math.min(...flat); high ??= Math.max(...flat);
  const cells = new ImageData(values[0].length, values.length);
  flat.forEach((value, index) => {
    const share = (value - low) / (high - low || 1);
    cells.data.set([...color(share), threshold !== undefined && value < threshold ? 0 : 255], index * 4);
  });
  paint(context, canvas, picture, cells, opacity, true);
  if (mark) ring(context, canvas, mark, values.length, values[0].length);
}
export function cells(canvas, picture, colors, opacity = 0.85) {
  const held = new ImageData(colors[0].length, colors.length);
  colors.flat().forEach((value, index) => held.data.set([...value, 255], index * 4));
  paint(canvas.getContext("2d"), canvas, picture, held, opacity, false);
}
function paint(context, canvas, picture, held, opacity, smooth) {
  const small = new OffscreenCanvas(held.width, held.height);
  small.getContext("2d").putImageData(held, 0, 0);
  context.globalAlpha = 1;
  context.imageSmoothingEnabled = true;
  context.drawImage(picture, ...crop(picture, canvas), 0, 0, canvas.width, canvas.height);
  context.globalAlpha = opacity;
  context.imageSmoothingEnabled = smooth;
  context.drawImage(small, 0, 0, canvas.width, canvas.height);
  context.globalAlpha = 1;
}
// The middle of the picture in the shape that the model saw.
export function crop(picture, canvas) {
  const width = picture.naturalWidth, height = picture.naturalHeight, scale = Math.min(width / canvas.width, height / canvas.height);
  const across = canvas.width * scale, down = canvas.height * scale;
  return [(width - across) / 2, (height - down) / 2, across, down];
}
function ring(context, canvas, [row, column], rows, columns) {
  const across = canvas.width / columns, down = canvas.height / rows;
  for (const [ink, width] of [["#000", 5], ["#fff", 2.5]]) {
    context.strokeStyle = ink; context.lineWidth = width;
    context.strokeRect(column * across + 2, row * down + 2, across - 4, down - 4);
  }
}
export async function loaded(path) {
  const made = new Image();
  made.src = await api.picture(path);
  await made.decode();
  return made;
}
// The shelf of pictures: drop, choose, take a scene; click chooses, a second choice may be marked.
let shelf = null;
export function tray({ chosen = () => null, second = () => null, pick, changed = () => {} }) {
  const list = h("div.tray", { role: "group", "aria-label": t("pictures") }), files = h("input", { type: "file", accept: "image/*", multiple: true, hidden: true });
  const add = tries(async (held) => {
    for (const file of held) { const made = await api.upload(file); await refresh(); pick(made, false); show(); }
    changed(shelf);
  });
  files.addEventListener("change", () => add([...files.files]));
  const presets = ["easy", "several", "hard", "single", "detail"];
  let preset = "easy";
  const scene = h("button.tiny", { type: "button", onclick: tries(async () => {
    scene.disabled = true;
    try {
      const made = await api.post("scenes", { preset, number: Math.floor(Math.random() * 10000) });
      await refresh(); pick(made, false); show(); changed(shelf);
    } finally { scene.disabled = false; }
  }) }, t("scene"));
  const kind = h("select", { "aria-label": t("scene"), onchange: () => { preset = kind.value; } }, presets.map((name) => h("option", { value: name }, name)));
  const drop = h("div.drop", {}, t("drop"), h("button.tiny", { type: "button", onclick: () => files.click() }, t("choose")), files);
  for (const [name, over] of [["dragover", true], ["dragleave", false], ["drop", false]]) drop.addEventListener(name, (event) => {
    event.preventDefault(); drop.classList.toggle("over", over);
    if (name === "drop") add([...event.dataTransfer.files]);
  });
  function show() {
    list.replaceChildren(...(shelf ?? []).map((one) => h("button", { type: "button", title: one.caption || one.title, "aria-label": one.caption || one.title, "aria-pressed": String(one.id === chosen() || one.id === second()),
      onclick: (event) => { pick(one, event.shiftKey); show(); },
      onkeydown: tries(async (event) => { if (event.key === "Delete") { await api.remove(`pictures/${one.id}`); await refresh(); show(); changed(shelf); } }) },
    image(`pictures/${one.id}.png`), one.id === second() && h("span.mark", {}, t("second")))));
    hint.hidden = Boolean(shelf?.length);
    list.hidden = !shelf?.length;
  }
  async function refresh() { shelf = (await api.get("pictures")).pictures; }
  const hint = h("p.quiet", {}, t("noPictures"));
  const made = h("div.fields", {}, h("h2", {}, t("pictures")), list, hint, h("div.row", {}, scene, h("div.grow", {}, kind)), drop);
  refresh().then(() => { show(); changed(shelf); }).catch(() => {});
  return Object.assign(made, { show, refresh: async () => { await refresh(); show(); changed(shelf); }, all: () => shelf ?? [] });
}
