/** What is searched: as the page's URL, and as the API's request. */

import { secondsOf } from "./text.js";

/** The types that can be searched by a text; the others' vectors come from elsewhere. */
export const SEARCHABLE = document
  .querySelector('meta[name="searchable-types"]')
  .content.split(" ")
  .filter(Boolean);
export const DEFAULTS = { q: "", type: SEARCHABLE[0] ?? "transcript", mode: "semantic", min: 0, k: 20 };
const TYPES = [...SEARCHABLE, "all"];
const MODES = ["semantic", "keyword", "hybrid"];
export const SIZES = [5, 10, 20, 50, 100];

/** Servers and proxies refuse requests whose URL is much longer. */
const LONGEST_URL = 4000;

/** The state in a URL: media items one by one in `media_item_id`, or as they are typed in `media`. */
export function fromUrl(search) {
  const given = new URLSearchParams(search);
  const min = Number(given.get("min"));
  const k = Number(given.get("k"));
  return {
    q: given.get("q") ?? "",
    type: TYPES.includes(given.get("type")) ? given.get("type") : DEFAULTS.type,
    mode: MODES.includes(given.get("mode")) ? given.get("mode") : DEFAULTS.mode,
    min: min > 0 && min <= 1 ? min : DEFAULTS.min,
    k: SIZES.includes(k) ? k : DEFAULTS.k,
    media: [...new Set([...given.getAll("media_item_id"), ...given.getAll("media").flatMap(listOf)])],
    from: given.get("from") ?? "",
    to: given.get("to") ?? "",
    meta: given.getAll("meta").filter((each) => pairOf(each) !== null),
  };
}

/** The URL of a state, and whether it has all of it: texts that are too long together are left out. */
export function toUrl(state) {
  const whole = parametersOf(state);
  const fits = whole.length <= LONGEST_URL;
  const query = fits ? whole : parametersOf({ ...state, ...NO_FILTERS, q: "" });
  return [query ? `?${query}` : location.pathname, fits];
}

function parametersOf(state) {
  const shown = new URLSearchParams();
  for (const [name, value] of Object.entries(state)) {
    if (name === "meta") value.forEach((each) => shown.append(name, each));
    else if (name === "media") value.forEach((each) => shown.append("media_item_id", each));
    else if (value !== "" && value !== DEFAULTS[name]) shown.set(name, value);
  }
  return shown.toString();
}

/** The ids in what is typed: with commas between, and in quotes where an id has some of its own. */
export function listOf(text) {
  const parts = text.matchAll(/\s*(?:"((?:[^"]|"")*)"\s*(?=,|$)|([^,]*))(?:,|$)/g);
  return [...parts]
    .map(([, quoted, plain]) => quoted?.replaceAll('""', '"') ?? plain.trim())
    .filter(Boolean);
}

/** Ids as they can be typed. */
export function textOf(ids) {
  const quoted = (id) => `"${id.replaceAll('"', '""')}"`;
  return ids.map((id) => (/^"|,|^\s|\s$/.test(id) ? quoted(id) : id)).join(", ");
}

/** The name and the value of "name=value"; null of anything else. */
export function pairOf(text) {
  const place = text.indexOf("=");
  const [name, value] = [text.slice(0, place).trim(), text.slice(place + 1).trim()];
  return place > 0 && name && value && !name.startsWith("$") ? [name, value] : null;
}

export const NO_FILTERS = { min: 0, media: [], from: "", to: "", meta: [] };

/** Each filter in force: what it says, and the change that removes it. */
export function filtersOf(state) {
  const [from, to] = [state.from.trim(), state.to.trim()];
  const found = [];
  if (state.min > 0) found.push([`similarity ≥ ${state.min.toFixed(2)}`, { min: 0 }]);
  if (state.media.length) found.push([`media item ${textOf(state.media)}`, { media: [] }]);
  if (from || to) {
    found.push([[from && `from ${from}`, to && `to ${to}`].filter(Boolean).join(" "), { from: "", to: "" }]);
  }
  for (const each of state.meta) {
    found.push([each, { meta: state.meta.filter((other) => other !== each) }]);
  }
  return found;
}

/** The path and the body of the request; a search for all types is several that are sent as one. */
export function requestOf(state, more = {}) {
  if (state.type === "all") {
    const queries = SEARCHABLE.map((type) => bodyOf(state, type, more));
    return { path: "search/batch", body: { queries } };
  }
  return { path: "search", body: bodyOf(state, state.type, more) };
}

function bodyOf(state, type, more) {
  const body = { query: state.q, embedding_type: type, top_k: state.k, mode: state.mode };
  if (state.min > 0) body.min_similarity = state.min;
  const filter = filterOf(state);
  if (Object.keys(filter).length) body.filter = filter;
  body.highlight = true;
  if (state.mode !== "semantic") body.explain = true;
  return { ...body, ...more };
}

const IDS = ["media_item_id", "segment_id"];

function filterOf(state) {
  const filter = Object.create(null);
  if (state.media.length) filter.media_item_id = { $in: state.media };
  const [from, to] = [secondsOf(state.from), secondsOf(state.to)];
  if (from !== null || to !== null) {
    filter.$time = { ...(from !== null && { from }), ...(to !== null && { to }) };
  }
  const metadata = Object.create(null);
  for (const [name, value] of state.meta.map(pairOf)) {
    metadata[name] ??= { $in: [] };
    metadata[name].$in.push(...(IDS.includes(name) ? [value] : readings(value)));
  }
  // Values of one name are alternatives, but not to the media items.
  if ("media_item_id" in metadata && "media_item_id" in filter) return { $and: [filter, metadata] };
  return Object.assign(filter, metadata);
}

/** In metadata, 30 and "30" differ, and here nobody can tell which is meant. */
function readings(value) {
  if (value === "true" || value === "false") return [value, value === "true"];
  const number = Number(value);
  const exact = /^-?\d+(\.\d+)?$/.test(value) && Math.abs(number) <= Number.MAX_SAFE_INTEGER;
  return exact ? [value, number] : [value];
}
