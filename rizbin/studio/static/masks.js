// Masks as COCO has them: compressed run lengths, column by column.
export function pixels({ size: [height, width], counts }) {
  const runs = [];
  for (let place = 0; place < counts.length;) {
    let value = 0, shift = 0, letter;
    do {
      letter = counts.charCodeAt(place++) - 48;
      value |= (letter & 31) << shift;
      shift += 5;
    } while (letter & 32);
    if (letter & 16 && shift < 32) value |= -1 << shift;
    runs.push(runs.length > 2 ? value + runs[runs.length - 2] : value);
  }
  const held = new Uint8Array(height * width);
  let at = 0;
  runs.forEach((run, index) => { if (index % 2) held.fill(1, at, at + run); at += run; });
  return (row, column) => held[column * height + row];
}
// Each mask in its color over the picture, the first on top.
export function tint(canvas, masks, strength = 0.5) {
  const context = canvas.getContext("2d"), cells = context.createImageData(canvas.width, canvas.height);
  for (const { mask, ink } of masks.toReversed()) {
    const inside = pixels(mask), [red, green, blue] = [1, 3, 5].map((place) => parseInt(ink.slice(place, place + 2), 16));
    for (let row = 0; row < canvas.height; row++) for (let column = 0; column < canvas.width; column++) {
      if (inside(row, column)) cells.data.set([red, green, blue, Math.round(255 * strength)], 4 * (row * canvas.width + column));
    }
  }
  context.putImageData(cells, 0, 0);
}
