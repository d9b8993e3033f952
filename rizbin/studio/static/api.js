// Everything that is asked of the server. The token comes in the link's fragment, which no request carries, and goes out
// as a header, which no other site can set.
const KEY = "rizbin-token";
function take() {
  const fragment = /^#token=([\w-]+)$/.exec(location.hash);
  if (!fragment) return false;
  localStorage.setItem(KEY, fragment[1]);
  history.replaceState(null, "", "/#/draw");
  return true;
}
take();
// The link of a new start, opened in a tab that shows the page already, changes its fragment alone.
addEventListener("hashchange", () => { if (take()) location.reload(); });
const token = () => localStorage.getItem(KEY) ?? "";

export class Refused extends Error {
  constructor(status, message) { super(message); this.status = status; }
}

async function ask(method, path, body, headers = {}) {
  const response = await fetch(`/api/${path}`, { method, body, headers: { "X-Rizbin-Token": token(), ...headers }, cache: "no-store" });
  if (!response.ok) {
    const held = await response.json().catch(() => ({}));
    throw new Refused(response.status, held.error ?? response.statusText);
  }
  return response;
}
export const get = async (path) => (await ask("GET", path)).json();
export const post = async (path, values = {}) => (await ask("POST", path, JSON.stringify(values), { "Content-Type": "application/json" })).json();
export const remove = async (path) => (await ask("DELETE", path)).json();
export const text = async (path) => (await ask("GET", path)).text();
export const upload = async (file) => (await ask("POST", "pictures", file, { "X-Name": encodeURIComponent(file.name ?? "picture") })).json();

// Images need the header too, so they are fetched and shown from memory; the last thousand are kept.
const images = new Map();
export function picture(path) {
  if (!images.has(path)) {
    images.set(path, ask("GET", `file/${path}`).then((response) => response.blob()).then((blob) => URL.createObjectURL(blob)));
    images.get(path).catch(() => images.delete(path));
    if (images.size > 1000) {
      const [first, held] = images.entries().next().value;
      images.delete(first);
      held.then((link) => URL.revokeObjectURL(link)).catch(() => {});
    }
  }
  return images.get(path);
}

// Server-sent events read by hand, as EventSource sends no headers. It goes on from the last id after a break.
export function stream(job, heard, broken = () => {}) {
  let last = "", open = true, stop = new AbortController();
  (async () => {
    while (open) {
      try {
        const response = await fetch(`/api/events${job ? `?job=${job}` : ""}`, {
          headers: { "X-Rizbin-Token": token(), ...(last ? { "Last-Event-ID": last } : {}) }, signal: stop.signal, cache: "no-store",
        });
        if (!response.ok) {
          broken(response.status);
          if ([401, 403, 404].includes(response.status)) return;
          throw new Error(response.statusText);
        }
        broken(0);
        const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
        for (let held = ""; ;) {
          const { value, done } = await reader.read();
          if (done) break;
          const parts = (held + value).split("\n\n");
          held = parts.pop();
          for (const part of parts) {
            const fields = Object.fromEntries(part.split("\n").filter((line) => !line.startsWith(":")).map((line) => {
              const at = line.indexOf(": ");
              return [line.slice(0, at), line.slice(at + 2)];
            }));
            if (fields.id) last = fields.id;
            if (fields.data) heard(fields.event, JSON.parse(fields.data));
          }
        }
      } catch { if (open) broken(-1); }
      if (open) await new Promise((after) => setTimeout(after, 1000));
    }
  })();
  return () => { open = false; stop.abort(); };
}

export async function openReport(path) {
  const tab = window.open("about:blank", "_blank");
  try {
    const { link } = await post("tickets", { path });
    if (tab) { tab.opener = null; tab.location.replace(link); } else location.assign(link);
  } catch (error) { tab?.close(); throw error; }
}
