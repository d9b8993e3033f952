// A picture on which a box is dragged, or moved by keys: arrows move it, with Shift they change its size, Delete takes it away.
import { t } from "./i18n.js";
import { h, image } from "./ui.js";

const SVG = "http://www.w3.org/2000/svg";
const STEP = 0.04, LEAST = 0.04;

// region: [left, top, right, bottom] as shares of the picture, or null; `change` hears of one that stands still.
export function region(path, alt, change) {
  let held = null, drag = null, soon = 0;
  const svg = document.createElementNS(SVG, "svg"), box = document.createElementNS(SVG, "rect");
  for (const [key, value] of Object.entries({ viewBox: "0 0 1 1", preserveAspectRatio: "none", tabindex: "0", role: "application", "aria-label": t("regionHelp") })) svg.setAttribute(key, value);
  box.setAttribute("class", "region");
  svg.append(box);
  const place = h("div.boxes", {}, image(path, { alt }), svg);
  const round = (value) => Math.round(Math.min(Math.max(value, 0), 1) * 1000) / 1000;
  function draw() {
    const [left, top, right, bottom] = held ?? [0, 0, 0, 0];
    for (const [key, value] of Object.entries({ x: left, y: top, width: right - left, height: bottom - top })) box.setAttribute(key, value);
    box.style.display = held ? "" : "none";
  }
  const settle = (wait) => { clearTimeout(soon); soon = setTimeout(() => change(held), wait); };
  const at = (event) => { const frame = svg.getBoundingClientRect(); return [round((event.clientX - frame.left) / frame.width), round((event.clientY - frame.top) / frame.height)]; };
  svg.addEventListener("pointerdown", (event) => { svg.setPointerCapture(event.pointerId); svg.focus(); drag = at(event); event.preventDefault(); });
  svg.addEventListener("pointermove", (event) => {
    if (!drag) return;
    const [x, y] = at(event), [a, b] = drag;
    held = [Math.min(a, x), Math.min(b, y), Math.max(a, x), Math.max(b, y)];
    draw();
  });
  svg.addEventListener("pointerup", (event) => {
    if (!drag) return;
    drag = null;
    if (held && (held[2] - held[0] < LEAST || held[3] - held[1] < LEAST)) held = null;
    draw(); settle(0); event.preventDefault();
  });
  svg.addEventListener("pointercancel", () => { drag = null; });
  svg.addEventListener("keydown", (event) => {
    const moves = { ArrowUp: [0, -STEP], ArrowDown: [0, STEP], ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0] }[event.key];
    if (["Delete", "Backspace", "Escape"].includes(event.key) && held) { held = null; draw(); settle(0); event.preventDefault(); return; }
    if (!moves) return;
    event.preventDefault();
    if (!held) held = [0.3, 0.3, 0.7, 0.7];
    else {
      const [x, y] = moves, [left, top, right, bottom] = held;
      if (event.shiftKey) held = [left, top, round(Math.max(right + x, left + LEAST)), round(Math.max(bottom + y, top + LEAST))];
      else { const across = Math.min(Math.max(x, -left), 1 - right), down = Math.min(Math.max(y, -top), 1 - bottom); held = [round(left + across), round(top + down), round(right + across), round(bottom + down)]; }
    }
    draw(); settle(350);
  });
  draw();
  return { place, clear: () => { held = null; draw(); }, close: () => clearTimeout(soon) };
}
// A picture with a box over it, both in the picture's own shape.
export function placed(path, [left, top, right, bottom]) {
  const svg = document.createElementNS(SVG, "svg"), box = document.createElementNS(SVG, "rect");
  svg.setAttribute("viewBox", "0 0 1 1"); svg.setAttribute("preserveAspectRatio", "none"); svg.setAttribute("aria-hidden", "true");
  for (const [key, value] of Object.entries({ x: left, y: top, width: right - left, height: bottom - top, class: "region" })) box.setAttribute(key, value);
  svg.append(box);
  return h("span.placed", {}, image(path), svg);
}
