"use strict";
// Comfort only: the page is complete without it.

// Values under the pointer. Points are read back from the drawing, so that no number is in the file twice.
for (const chart of document.querySelectorAll("svg.chart")) {
  const [left, top, right, bottom] = chart.dataset.frame.split(" ").map(Number);
  const [x0, x1, y0, y1] = chart.dataset.range.split(" ").map(Number);
  const log = chart.dataset.log === "1";
  const lines = [...chart.querySelectorAll("polyline.line, circle.dot")].map((line) => ({
    name: line.dataset.name,
    points: line.tagName === "circle"
      ? [[Number(line.getAttribute("cx")), Number(line.getAttribute("cy"))]]
      : line.getAttribute("points").split(" ").map((pair) => pair.split(",").map(Number)),
  }));
  if (!lines.length) continue;
  const valueAt = (y) => {
    const share = (bottom - y) / (bottom - top);
    return log ? y0 * Math.pow(y1 / y0, share) : y0 + share * (y1 - y0);
  };
  const short = (value) => Number(value.toPrecision(3)).toLocaleString("en", { maximumSignificantDigits: 3 });
  const cursor = chart.querySelector(".axis").cloneNode();
  cursor.setAttribute("class", "cursor");
  cursor.setAttribute("y1", top);
  cursor.setAttribute("y2", bottom);
  const box = document.createElement("p");
  box.className = "values";
  const hide = () => { cursor.remove(); box.remove(); };
  chart.addEventListener("pointerleave", hide);
  chart.addEventListener("pointermove", (event) => {
    const frame = chart.getBoundingClientRect();
    const x = (event.clientX - frame.left) / frame.width * chart.viewBox.baseVal.width;
    if (x < left - 5 || x > right + 5) return hide();
    const shown = new Map();
    for (const line of lines) {
      const near = line.points.reduce((best, point) => Math.abs(point[0] - x) < Math.abs(best[0] - x) ? point : best);
      const before = shown.get(line.name);
      if (!before || Math.abs(near[0] - x) < Math.abs(before[0] - x)) shown.set(line.name, near);
    }
    cursor.setAttribute("x1", x);
    cursor.setAttribute("x2", x);
    chart.append(cursor);
    const at = x0 + (Math.min(Math.max(x, left), right) - left) / (right - left) * (x1 - x0);
    box.textContent = [`at ${Math.round(at).toLocaleString("en")}`, ...[...shown].map(([name, point]) => `${name}: ${short(valueAt(point[1]))}`)].join("\n");
    chart.parentElement.append(box);
  });
}

// Tables sort, within their groups, by a click or Enter on a column's name.
for (const table of document.querySelectorAll("table")) {
  const heads = [...table.querySelectorAll("thead th")];
  heads.forEach((head, column) => {
    const sort = () => {
      const down = head.getAttribute("aria-sort") !== "descending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => row.cells[column].dataset.sort ?? row.cells[column].textContent;
      const compare = (a, b) => {
        const [p, q] = [Number(key(a)), Number(key(b))];
        const order = Number.isNaN(p) || Number.isNaN(q) ? key(a).localeCompare(key(b)) : p - q;
        return down ? -order : order;
      };
      for (const group of table.tBodies) {
        group.append(...[...group.rows].filter((row) => row.cells.length === heads.length).sort(compare));
      }
    };
    head.tabIndex = 0;
    head.addEventListener("click", sort);
    head.addEventListener("keydown", (event) => { if (event.key === "Enter") sort(); });
  });
}

// Of the steps of something, one is shown at a time, chosen by a slider.
for (const steps of document.querySelectorAll(".steps")) {
  const all = [...steps.querySelectorAll(".step")];
  if (all.length < 2) continue;
  const label = document.createElement("label");
  const slider = document.createElement("input");
  const words = document.createElement("span");
  Object.assign(slider, { type: "range", min: 0, max: all.length - 1, step: 1, value: all.length - 1 });
  const show = () => {
    all.forEach((step, place) => { step.hidden = place !== Number(slider.value); });
    words.textContent = all[Number(slider.value)].querySelector("h4").textContent;
    slider.setAttribute("aria-valuetext", words.textContent);
  };
  slider.addEventListener("input", show);
  for (const step of all) step.querySelector("h4").hidden = true;
  label.append(words, slider);
  steps.prepend(label);
  show();
}

// A picture grows on a click or Enter, and shrinks on the next.
for (const image of document.querySelectorAll("figure img")) {
  const open = () => {
    const dialog = document.createElement("dialog");
    const copy = image.cloneNode();
    copy.removeAttribute("tabindex");
    dialog.append(copy);
    dialog.addEventListener("click", () => dialog.close());
    dialog.addEventListener("close", () => dialog.remove());
    document.body.append(dialog);
    dialog.showModal();
  };
  image.tabIndex = 0;
  image.setAttribute("role", "button");
  image.addEventListener("click", open);
  image.addEventListener("keydown", (event) => { if (event.key === "Enter") open(); });
}
