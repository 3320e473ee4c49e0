/** What was found, by media item, each with a timeline. */

import { curlOf } from "./api.js";
import { bar, byId, make } from "./elements.js";
import { contextsOf, nameOf } from "./search.js";
import { SIZES } from "./state.js";
import { TYPES, clock, count, markedParts, playerLink, spanOf, timesOf } from "./text.js";
import { timeline } from "./timeline.js";

const SHOWN_HITS = 3;
const COPIED_MS = 1600;
const template = document.querySelector('meta[name="media-url-template"]').content;

/** The hits that are shown, and those before them, by name. */
let [shown, before] = [new Map(), new Map()];

/** The first hit on the page that wasn't there before, else the first; undefined without any. */
export function firstNewHit() {
  const there = [...byId("results").querySelectorAll(".hit")];
  const known = new Set([...shown].filter(([name]) => before.has(name)).map(([, item]) => item));
  return there.find((item) => !known.has(item)) ?? there[0];
}

/** Show what was found; `change` takes changes of the state that a user asks for here. */
export function showResults(found, change) {
  const { groups, state } = found;
  const hits = groups.flatMap((group) => group.hits);
  const bestWords = Math.max(0, ...hits.map((hit) => hit.explain?.keyword?.bm25 ?? 0));
  const view = { ...found, bestWords, change, contexts: null };
  [shown, before] = [new Map(), shown];
  byId("results").replaceChildren(
    toolbar(view, hits.length),
    ...groups.map((group) => groupCard(group, view)),
    ...more(state, hits.length, change),
  );
  return `${count(hits.length, "result")} in ${count(groups.length, "media item")}`;
}

function toolbar(view, hits) {
  const { groups, request, answer } = view;
  return make(
    "div",
    { class: "toolbar" },
    make(
      "p",
      {},
      make("strong", {}, count(hits, "result")),
      ` in ${count(groups.length, "media item")}`,
    ),
    copyButton("Copy JSON", () => JSON.stringify(answer, null, 2)),
    copyButton("Copy curl", () => curlOf(request.path, request.body)),
  );
}

function more(state, hits, change) {
  const next = SIZES.find((size) => size > state.k);
  if (hits < state.k || next === undefined) return [];
  const button = make("button", { type: "button", class: "plain", onclick: () => change({ k: next }) });
  button.append(`Show up to ${next}`);
  return [make("p", { class: "more" }, button)];
}

function groupCard(group, view) {
  const title = `Media item ${group.id}`;
  const list = make("ol", { class: "hits" });
  const items = group.hits.map((hit) => hitItem(hit, view));
  list.append(...items.slice(0, SHOWN_HITS));
  const card = make(
    "article",
    { class: "card group", "aria-label": title },
    make(
      "header",
      {},
      make("h2", {}, title),
      make("span", { class: "hint" }, count(group.hits.length, "result")),
      view.groups.length > 1 &&
        make(
          "button",
          {
            type: "button",
            class: "link",
            "aria-label": `Only media item ${group.id}`,
            onclick: () => view.change({ media: [group.id] }),
          },
          "Only this",
        ),
    ),
    timeline(group, (hit) => {
      const item = items[group.hits.indexOf(hit)];
      if (!item.isConnected) showAll(items, list);
      item.focus();
    }),
    list,
  );
  if (items.length > SHOWN_HITS) card.append(moreHits(items, list));
  return card;
}

function moreHits(items, list) {
  const hidden = items.length - SHOWN_HITS;
  const button = make("button", { type: "button", class: "link rest" }, `${hidden} more here`);
  button.addEventListener("click", () => {
    showAll(items, list);
    items[SHOWN_HITS].focus();
  });
  return button;
}

function showAll(items, list) {
  list.append(...items.slice(SHOWN_HITS));
  list.parentElement.querySelector(".rest")?.remove();
}

function hitItem(hit, view) {
  const segment = hit.metadata;
  const link = playerLink(template, segment);
  const times = timesOf(segment);
  const label = make("span", { class: "unseen" }, link ? `Play media item ${segment.media_item_id} at ` : "At ");
  const time = link
    ? make("a", { class: "time", href: link, target: "_blank", rel: "noopener" }, label, times)
    : make("span", { class: "time" }, label, times);
  const type =
    view.state.type === "all" && make("span", { class: `type ${hit.type}` }, TYPES[hit.type]);
  const neighbours = make("div", { class: "neighbours", hidden: true });
  const button = make(
    "button",
    { type: "button", class: "link", "aria-expanded": "false" },
    "Context",
  );
  button.addEventListener("click", () => toggleContext(button, neighbours, hit, view));
  const item = make(
    "li",
    { class: "hit", tabindex: "-1" },
    make("div", { class: "where" }, time, type),
    make("div", { class: "what" }, make("p", { class: "said", dir: "auto" }, marked(hit)), further(segment)),
    make("div", { class: "how" }, scores(hit, view.bestWords), button),
    neighbours,
  );
  shown.set(nameOf(hit), item);
  item.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && event.target === item && link) time.click();
  });
  return item;
}

function marked(hit) {
  return markedParts(hit.metadata.text, hit.highlights).map((part, position) =>
    position % 2 ? make("mark", {}, part) : part,
  );
}

const KNOWN = ["media_item_id", "segment_id", "start_time", "end_time", "text"];

function further(segment) {
  const fields = Object.entries(segment).filter(([name, value]) => !KNOWN.includes(name) && value !== null);
  if (fields.length === 0) return null;
  return make(
    "dl",
    { class: "further" },
    ...fields.map(([name, value]) =>
      make("div", {}, make("dt", {}, name), make("dd", {}, plain(value))),
    ),
  );
}

function plain(value) {
  if (Array.isArray(value) && value.every((each) => typeof each !== "object")) return value.join(", ");
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

function scores(hit, bestWords) {
  const lines = [score("Similarity", hit.similarity.toFixed(2), hit.similarity, hit.type)];
  const words = hit.explain?.keyword;
  if (words) lines.push(score("BM25", words.bm25.toFixed(1), words.bm25 / (bestWords || 1), "words"));
  return make("dl", { class: "scores" }, ...lines);
}

const score = (name, shown, share, className) =>
  make("div", {}, make("dt", {}, name), make("dd", {}, bar(share, className), shown));

async function toggleContext(button, neighbours, hit, view) {
  const open = button.getAttribute("aria-expanded") === "true";
  button.setAttribute("aria-expanded", String(!open));
  neighbours.hidden = open;
  if (open || neighbours.childElementCount) return;
  neighbours.replaceChildren(make("p", { class: "hint" }, "Loading …"));
  try {
    view.contexts ??= contextsOf(view.state);
    const context = (await view.contexts).get(nameOf(hit));
    neighbours.replaceChildren(...contextLines(hit, context));
  } catch (error) {
    view.contexts = null;
    neighbours.replaceChildren();
    neighbours.append(make("p", { class: "problem-text", role: "alert" }, error.message));
    neighbours.hidden = false;
  }
}

function contextLines(hit, context) {
  if (!context || context.before.length + context.after.length === 0) {
    const why = context ? "Nothing is beside it." : "It isn't among the results any more; search again.";
    return [make("p", { class: "hint" }, why)];
  }
  const line = (segment, className) =>
    make(
      "p",
      { class: className, dir: "auto" },
      make("span", { class: "time" }, spanOf(segment) ? clock(spanOf(segment)[0]) : "–"),
      segment.text,
    );
  return [
    ...context.before.map((segment) => line(segment, "neighbour")),
    line(hit.metadata, "neighbour itself"),
    ...context.after.map((segment) => line(segment, "neighbour")),
  ];
}

function copyButton(label, textOf) {
  const button = make("button", { type: "button", class: "plain small" }, label);
  button.addEventListener("click", async () => {
    const copied = await copy(textOf());
    button.textContent = copied ? "Copied" : "Not allowed here";
    byId("status").textContent = button.textContent;
    setTimeout(() => (button.textContent = label), COPIED_MS);
  });
  return button;
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Over plain HTTP, browsers have no clipboard but this.
    const area = make("textarea", { class: "unseen", "aria-hidden": "true" });
    area.value = text;
    const focused = document.activeElement;
    document.body.append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    focused?.focus();
    return copied;
  }
}
