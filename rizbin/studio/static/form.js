// Forms made from the flags of a command, as `rizbin schema` has them: a field a flag, its help under it.
import { h } from "./ui.js";
import { t } from "./i18n.js";

export function form(flags, { first = [], hidden = [], values = {}, changed = () => {}, choices = {} } = {}) {
  const fields = new Map();
  const own = flags.filter((flag) => !hidden.includes(flag.name) && !flag.check?.match(/^(path|image|images)$/));
  const short = first.map((name) => own.find((flag) => flag.name === name)).filter(Boolean);
  const rest = own.filter((flag) => !first.includes(flag.name));
  function made(flag, brief) {
    const start = values[flag.name] ?? flag.default, options = choices[flag.name] ?? flag.choices;
    const label = flag.flag.split(".").pop().replaceAll("-", " ");
    let input;
    if (flag.kinds?.[0] === "bool") input = h("input", { type: "checkbox", checked: Boolean(start) });
    else if (options?.length && !flag.many) {
      const all = [...(flag.optional ? [""] : []), ...options];
      input = h("select", {}, all.map((option) => h("option", { value: option, selected: String(option) === String(start ?? "") }, option === "" ? t("none") : String(option))));
    } else {
      const numeric = flag.kinds?.some((kind) => kind === "int" || kind === "float") && !flag.kinds.includes("str") && !flag.many && (flag.count ?? 1) === 1;
      const text = Array.isArray(start) ? start.join(", ") : start ?? "";
      input = h("input", { type: numeric ? "number" : "text", step: "any", value: text, placeholder: flag.optional ? t("none") : "", autocomplete: "off" });
    }
    input.addEventListener("input", changed);
    fields.set(flag.name, { flag, input, first: input.type === "checkbox" ? input.checked : input.value, own: values[flag.name] !== undefined });
    const help = brief ? null : h("span.help", { lang: "en", dir: "ltr" }, flag.help ?? "");
    return input.type === "checkbox" ? h("label.check", { title: flag.help ?? "" }, input, h("span", { lang: "en" }, label)) : h("label", { title: flag.help ?? "" }, h("span", { lang: "en" }, label), input, help);
  }
  const body = h("div.fields", {}, h("div.pair", {}, short.map((flag) => made(flag, true))),
    rest.length && h("details", {}, h("summary", {}, t("more")), h("div.fields", {}, rest.map((flag) => made(flag, false)))));
  // Only what differs from the defaults: the command stays as short as a person would type it.
  function given() {
    const out = {};
    for (const [name, { flag, input, first, own }] of fields) {
      if (!own && (input.type === "checkbox" ? input.checked : input.value) === first) continue;
      let value = input.type === "checkbox" ? input.checked : input.value.trim();
      if (flag.many || (flag.count ?? 1) > 1) value = value === "" ? [] : value.split(",").map((part) => cast(part.trim(), flag));
      else if (value === "" && flag.optional) value = null;
      else if (value === "" && typeof flag.default === "number") continue;
      else value = cast(value, flag);
      if (JSON.stringify(value) !== JSON.stringify(flag.default ?? null) && !(value === "" && flag.default === undefined)) out[name] = value;
    }
    return out;
  }
  function cast(value, flag) {
    if (typeof value !== "string") return value;
    const option = flag.choices?.find((each) => String(each) === value);
    if (option !== undefined) return option;
    const numeric = flag.kinds?.some((kind) => kind === "int" || kind === "float");
    return numeric && value !== "" && Number.isFinite(Number(value)) ? Number(value) : value;
  }
  return Object.assign(body, { given, set: (name, value) => { const held = fields.get(name); if (held) held.input.value = value; } });
}
