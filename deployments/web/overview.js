/** What the service holds, and what it is doing. */

import { Refused, Unreachable, call, key } from "./api.js";
import { byId, make } from "./elements.js";
import { TYPES, ago, count } from "./text.js";

const OPEN_MS = 5_000;
const CLOSED_MS = 30_000;
const INGEST_S = 30;

const toggle = byId("overview-toggle");
const panel = byId("overview");
const forget = byId("forget");
let timer = null;
let health = null;

/** Keep the overview fresh while the page is seen.
 *
 * `listener.counted` hears the number of segments, `listener.locked` that there is no good key.
 */
export function startOverview(listener) {
  const refresh = async () => {
    clearTimeout(timer);
    if (!document.hidden) await load(listener);
    timer = setTimeout(refresh, panel.hidden ? CLOSED_MS : OPEN_MS);
  };
  toggle.addEventListener("click", () => {
    const open = panel.hidden;
    panel.hidden = !open;
    toggle.setAttribute("aria-expanded", String(open));
    if (open) {
      health = null;
      forget.hidden = key.get() === null;
      refresh();
    }
  });
  forget.addEventListener("click", () => {
    key.forget();
    location.reload();
  });
  panel.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || event.isComposing) return;
    event.stopPropagation();
    toggle.click();
    toggle.focus();
  });
  document.addEventListener("visibilitychange", refresh);
  refresh();
  return refresh;
}

async function load(listener) {
  try {
    const stats = await call("stats");
    // An encode and a search for real: once each time that somebody looks, and until all is well.
    if (isUnhealthy() || (!panel.hidden && health === null)) health = await call("health");
    light(isUnhealthy() ? "bad" : "good", summaryOf(stats));
    byId("overview-body").replaceChildren(...contents(stats));
    listener.counted(stats.total_vectors);
  } catch (error) {
    const locked = error instanceof Refused && error.problem.status === 401;
    light(locked ? "unknown" : "bad", locked ? "Locked" : "Not available");
    byId("overview-body").replaceChildren(make("p", {}, whyNot(error, locked)));
    if (locked) listener.locked(error);
  }
  forget.hidden = key.get() === null;
}

function whyNot(error, locked) {
  if (locked) return "It needs an API key.";
  const told = error instanceof Refused || error instanceof Unreachable;
  return told ? error.message : "The service answered, but not as this page expects it.";
}

const isUnhealthy = () => health !== null && health.status !== "healthy";

function summaryOf(stats) {
  const held = count(stats.total_vectors, "segment");
  if (isUnhealthy()) return `${held}, ${health.status}`;
  return isIngesting(stats) ? `${held}, storing` : held;
}

function light(kind, summary) {
  byId("light").className = `light ${kind}`;
  byId("summary").textContent = summary;
}

const writtenAgo = (stats) => (Date.parse(stats.timestamp) - Date.parse(stats.last_write)) / 1000;
const isIngesting = (stats) => stats.last_write !== null && writtenAgo(stats) <= INGEST_S;

function contents(stats) {
  const fact = (name, value, more) =>
    make("div", {}, make("dt", {}, name), make("dd", {}, value, more ? make("small", {}, more) : null));
  const facts = make(
    "dl",
    { class: "facts" },
    ...Object.entries(TYPES).map(([type, name]) =>
      fact(`${name}s`, stats[`${type}_vectors`].toLocaleString("en")),
    ),
    ...models(stats).map(([name, model, dimension]) => fact(name, model, `${dimension} dimensions`)),
    fact("Ingest", ...ingest(stats)),
    fact("Encoders", stats.encoder_replicas ?? "unknown", stats.encoder_replicas === null ? null : "running"),
    fact("Health", health?.status ?? "…", health?.reason),
  );
  return [facts, indices(stats)];
}

/** The model of all indices, or that of each. */
function models(stats) {
  const own = Object.entries(stats.indices);
  if (new Set(own.map(([, index]) => index.model_name)).size < 2) {
    return [["Model", stats.model_name, stats.embedding_dimension]];
  }
  return own.map(([type, index]) => [`${TYPES[type]} model`, index.model_name, index.embedding_dimension]);
}

function ingest(stats) {
  if (stats.last_write === null) return ["idle", "nothing stored since the start"];
  return [isIngesting(stats) ? "in progress" : "idle", `last write ${ago(writtenAgo(stats))}`];
}

function indices(stats) {
  const head = ["Index", "Type", "Segments", "State", "Recall@10"];
  const rows = Object.entries(stats.indices).map(([type, index]) => {
    const cells = [index.type, index.rows.toLocaleString("en"), stateOf(index), recallOf(index)];
    return make("tr", {}, make("th", { scope: "row" }, `${TYPES[type]}s`), ...cells.map((cell) => make("td", {}, cell)));
  });
  return make(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": "Indices" },
    make(
      "table",
      {},
      make("thead", {}, make("tr", {}, ...head.map((name) => make("th", { scope: "col" }, name)))),
      make("tbody", {}, ...rows),
    ),
  );
}

function recallOf(index) {
  if (index.type === "flat") return "exact";
  return index.recall_at_10 === null ? "not measured" : index.recall_at_10.toFixed(2);
}

function stateOf(index) {
  if (index.building) {
    const share = index.build_progress;
    return share === null ? "building" : `building, ${Math.round(share * 100)} %`;
  }
  const fresh = index.rows - index.main_rows;
  return index.main_rows === 0 || fresh <= 0 ? "ready" : `ready, ${count(fresh, "new one")} scanned`;
}
