/** Binds the parts: what is typed and chosen, the URL, the search, and what is shown. */

import { Refused, call } from "./api.js";
import { byId, make } from "./elements.js";
import { clearNotice, showError, showNothing, showWelcome, showWrongTime } from "./notices.js";
import { startOverview } from "./overview.js";
import { firstNewHit, showResults } from "./results.js";
import { search } from "./search.js";
import { NO_FILTERS, SEARCHABLE, filtersOf, fromUrl, listOf, pairOf, textOf, toUrl } from "./state.js";
import { secondsOf } from "./text.js";

const PAUSE_MS = 180;

const form = byId("search");
const box = byId("query");
const results = byId("results");
const notice = byId("notice");
let state = kept();
let shown = null;
let running = null;
let timer = null;
let total = null;
let failed = false;
let locked = false;

for (const option of form.elements.type) {
  if (option.value === "all" || SEARCHABLE.includes(option.value)) continue;
  option.disabled = true;
  option.parentElement.title = "Its vectors come from elsewhere, so there is no text to search it by";
}

/** The state of this entry of the history: in the URL, unless it was too long for that. */
function kept() {
  return history.state?.unshared ?? fromUrl(location.search);
}

function showState() {
  if (box.value !== state.q) box.value = state.q;
  for (const name of ["type", "mode"]) form.elements[name].value = state[name];
  for (const name of ["min", "k", "from", "to"]) byId(name).value = state[name];
  byId("media").value = textOf(state.media);
  byId("min-shown").textContent = Number(state.min).toFixed(2);
  for (const name of ["from", "to"]) {
    byId(name).setAttribute("aria-invalid", String(Number.isNaN(secondsOf(state[name]))));
  }
  const filters = filtersOf(state);
  byId("active").replaceChildren(...filters.map(chip));
  byId("filter-count").hidden = filters.length === 0;
  byId("filter-count").textContent = filters.length;
  byId("unshared").hidden = toUrl(state)[1];
  document.title = state.q.trim() ? `${state.q.trim()} – Search` : "Search";
}

function chip([text, removal]) {
  const remove = make("button", { type: "button", "aria-label": `Remove ${text}` }, "×");
  remove.addEventListener("click", () => {
    change(removal);
    byId("filters-toggle").focus();
  });
  return make("li", {}, text, remove);
}

/** Take a change into the URL and search. What is only typed replaces what was typed before. */
function change(changes, { typed = false } = {}) {
  const before = JSON.stringify(state);
  state = { ...state, q: box.value, ...changes };
  const [url, fits] = toUrl(state);
  const entry = fits ? { typed } : { typed, unshared: state };
  const changed = JSON.stringify(state) !== before;
  if (changed && !(typed && history.state?.typed)) history.pushState(entry, "", url);
  else if (changed || !typed) history.replaceState(entry, "", url);
  showState();
  run();
}

async function run() {
  clearTimeout(timer);
  running?.abort();
  const wrong = [state.from, state.to].find((time) => Number.isNaN(secondsOf(time)));
  if (!state.q.trim() || wrong !== undefined) {
    done();
    byId("status").textContent = "";
    if (locked) return;
    if (state.q.trim()) showWrongTime(wrong);
    else showWelcome(total);
    return;
  }
  const mine = (running = new AbortController());
  byId("progress").hidden = false;
  results.setAttribute("aria-busy", "true");
  try {
    const found = await search(state, mine.signal);
    if (mine.signal.aborted) return;
    failed = locked = false;
    keepingPlace(() => showFound(found));
  } catch (error) {
    if (mine.signal.aborted) return;
    failed = true;
    locked = isLocked(error);
    byId("status").textContent = "";
    keepingPlace(() => showError(error, retry));
    refreshOverview();
  }
  done();
}

const isLocked = (error) => error instanceof Refused && error.problem.status === 401;

function showFound(found) {
  clearNotice();
  byId("status").textContent = showResults(found, change);
  if (found.groups.length === 0) {
    showNothing(state, filtersOf(state).length > 0, change);
    byId("status").textContent = "Nothing found";
  }
}

/** Replace what is shown; where that had the focus, what comes instead gets it. */
function keepingPlace(replace) {
  const held = [results, notice].some((place) => place.contains(document.activeElement));
  const grown = shown !== null && state.k > shown.k;
  replace();
  shown = state;
  if (!held || document.activeElement !== document.body) return;
  const hit = grown ? firstNewHit() : results.querySelector(".hit");
  (hit ?? notice.querySelector("button") ?? box).focus();
}

function done() {
  running = null;
  byId("progress").hidden = true;
  results.removeAttribute("aria-busy");
}

function retry() {
  locked = false;
  refreshOverview();
  run();
}

box.addEventListener("input", () => {
  clearTimeout(timer);
  timer = setTimeout(() => change({ q: box.value }, { typed: true }), PAUSE_MS);
});
form.addEventListener("submit", (event) => {
  event.preventDefault();
  change({ q: box.value });
});
form.addEventListener("change", (event) => {
  const { name, value } = event.target;
  if (name === "min" || name === "k") change({ [name]: Number(value) });
  else if (name === "media") change({ media: listOf(value) });
  else if (name in state && name !== "q") change({ [name]: value });
});
byId("min").addEventListener("input", (event) => {
  byId("min-shown").textContent = Number(event.target.value).toFixed(2);
});

byId("filters-toggle").addEventListener("click", async () => {
  const open = byId("filters").hidden;
  showFilters(open);
  if (open && byId("media-items").childElementCount === 0) {
    const page = await call("media?limit=1000").catch(() => ({ media: [] }));
    byId("media-items").replaceChildren(
      ...page.media.map((each) => make("option", { value: textOf([String(each.media_item_id)]) })),
    );
  }
});
byId("filters-clear").addEventListener("click", () => change(NO_FILTERS));
byId("filters").addEventListener("keydown", (event) => {
  if (event.isComposing) return;
  if (event.key === "Escape") {
    event.stopPropagation();
    showFilters(false);
    byId("filters-toggle").focus();
  } else if (event.key === "Enter" && event.target === byId("meta")) {
    event.preventDefault();
    addMeta();
  }
});
byId("meta-add").addEventListener("click", addMeta);

function showFilters(open) {
  byId("filters").hidden = !open;
  byId("filters-toggle").setAttribute("aria-expanded", String(open));
}

function addMeta() {
  const field = byId("meta");
  const pair = pairOf(field.value);
  byId("meta-problem").hidden = pair !== null;
  field.setAttribute("aria-invalid", String(pair === null));
  if (pair === null) {
    byId("meta-problem").textContent = "It takes a name, = and a value, such as ticker=SPY.";
    return;
  }
  const text = pair.join("=");
  field.value = "";
  change({ meta: [...state.meta.filter((each) => each !== text), text] });
}

document.addEventListener("keydown", (event) => {
  // What is pressed while characters are put together belongs to the input method.
  if (event.isComposing) return;
  const typing = event.target.matches("input:not([type=radio]):not([type=range]), textarea, select");
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    box.focus();
    box.select();
  } else if (event.key === "Escape") {
    if (event.target !== box) box.focus();
    else if (box.value) {
      event.preventDefault();
      change({ q: "" });
    }
  } else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    moveTo(event, event.key === "ArrowDown" ? 1 : -1);
  }
});

function moveTo(event, step) {
  const hits = [...results.querySelectorAll(".hit")];
  const at = hits.indexOf(event.target.closest(".hit"));
  if (at < 0 && !(event.target === box && step > 0)) return;
  const next = at + step;
  if (next >= hits.length) return;
  event.preventDefault();
  if (next < 0) box.focus();
  else hits[next].focus();
}

window.addEventListener("popstate", () => {
  state = kept();
  showState();
  run();
});
window.addEventListener("online", () => failed && retry());

const refreshOverview = startOverview({
  counted(number) {
    const changed = total === null || (total === 0) !== (number === 0);
    total = number;
    locked = false;
    if (!state.q.trim() && changed) showWelcome(total);
  },
  locked(error) {
    total = null;
    locked = true;
    if (!state.q.trim() && byId("key") === null) showError(error, retry);
  },
});
showState();
run();
