/** What is shown instead of results: why there are none, and what can be done. */

import { Refused, Unreachable, key } from "./api.js";
import { byId, make } from "./elements.js";
import { NO_FILTERS } from "./state.js";

const notice = byId("notice");

export function clearNotice() {
  notice.replaceChildren();
}

function show(kind, title, ...children) {
  const role = kind === "error" ? "alert" : null;
  byId("results").replaceChildren();
  notice.replaceChildren(make("section", { class: `card notice ${kind}`, role }, make("h2", {}, title), ...children));
}

export function showWelcome(total) {
  if (total === 0) {
    return show(
      "empty",
      "Nothing is stored yet",
      make("p", {}, "Segments that are stored with ", make("code", {}, "POST /embed"), " are found here at once. ", make("a", { href: "guide/api" }, "How to store them")),
    );
  }
  return show(
    "empty",
    "Where was it said, or shown?",
    make("p", {}, "Ask in your own words: results come as you type. Semantic search finds what is meant, keyword search what was said word for word, hybrid search weighs both."),
  );
}

export function showWrongTime(time) {
  const advice = `“${time}” is no time: write seconds, mm:ss or h:mm:ss.`;
  show("empty", "The filter can't be read", make("p", {}, advice));
}

export function showNothing(state, filters, change) {
  const hints = [];
  const button = (label, changes) =>
    make("button", { type: "button", class: "plain", onclick: () => change(changes) }, label);
  if (filters) hints.push(button("Clear filters", NO_FILTERS));
  if (state.mode === "keyword") hints.push(button("Search by meaning too", { mode: "hybrid" }));
  if (state.type !== "all") hints.push(button("Look everywhere", { type: "all" }));
  show(
    "empty",
    "Nothing found",
    make("p", {}, filters ? "No segment matches the query and all filters." : "No segment matches the query."),
    make("p", { class: "buttons" }, ...hints),
  );
}

/** Show an error, and do `again` when asked to. */
export function showError(error, again) {
  const retry = make("button", { type: "button", class: "primary", onclick: again }, "Try again");
  if (error instanceof Unreachable) {
    const title = navigator.onLine ? "The service can't be reached" : "You are offline";
    const advice = navigator.onLine
      ? "It may be restarting, or the connection to it is interrupted."
      : "The search goes on as soon as the connection is back.";
    return show("error", title, make("p", {}, advice), make("p", { class: "buttons" }, retry));
  }
  if (!(error instanceof Refused)) {
    console.error(error);
    return show(
      "error",
      "The page can't show the answer",
      make("p", {}, "The service answered, but not as this page expects it. If the service was updated just now, loading the page again helps."),
      make("p", { class: "hint" }, String(error)),
      make("p", { class: "buttons" }, retry),
    );
  }
  const { problem } = error;
  if (problem.status === 401) return askForKey(again);
  const details = (problem.errors ?? []).map((each) =>
    make("li", {}, make("code", {}, each.location), ` ${each.message}`),
  );
  return show(
    "error",
    problem.title,
    details.length > 1 ? make("ul", {}, ...details) : make("p", {}, problem.detail),
    make("p", { class: "hint" }, `Status ${problem.status}${problem.code ? `, code ${problem.code}` : ""}`),
    problem.status === 429 || problem.status >= 500 ? make("p", { class: "buttons" }, retry) : null,
  );
}

function askForKey(again) {
  const wrong = key.get() !== null;
  key.forget();
  const input = make("input", { id: "key", type: "password", autocomplete: "off", required: true, "aria-describedby": "key-problem key-hint" });
  const problem = make("p", { class: "problem-text", id: "key-problem", role: "alert", hidden: true });
  const form = make(
    "form",
    { class: "key" },
    make("label", { for: "key" }, "API key"),
    make("div", { class: "pair" }, input, make("button", { class: "primary" }, "Continue")),
    problem,
    make("p", { class: "hint", id: "key-hint" }, "A read-only key is enough. It is kept until this tab is closed."),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const given = input.value.trim();
    if (!given) return;
    problem.textContent = key.problemOf(given);
    problem.hidden = problem.textContent === "";
    input.setAttribute("aria-invalid", String(!problem.hidden));
    if (!problem.hidden) return input.select();
    key.set(given);
    again();
  });
  show(
    "locked",
    wrong ? "This key isn't one of the service's" : "This service needs an API key",
    form,
  );
  if (wrong || document.activeElement === document.body) input.focus();
}
