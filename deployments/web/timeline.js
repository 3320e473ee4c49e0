/** Where in a media item its hits are. */

import { make } from "./elements.js";
import { extentOf } from "./search.js";
import { clock, spanOf, timesOf } from "./text.js";

/** How wide the shortest mark is, as in the style sheet. */
const MARK_PX = 4;
/** Times that begin so many of their lengths after zero, and not within an hour, have a scale of their own. */
const FAR = 4;
const SHORT_S = 900;

/** Marks of a group's hits; `show` takes the hit whose mark is clicked. Null if none has a time. */
export function timeline(group, show) {
  const timed = group.hits.filter((hit) => spanOf(hit.metadata) !== null);
  if (timed.length === 0) return null;
  const types = new Set(timed.map((hit) => hit.type));
  const track = make("div", { class: types.size > 1 ? "track lanes" : "track", role: "img" });
  const [first, last] = [make("span"), make("span")];
  const place = (earliest, latest) => {
    const scale = scaleOf(earliest, latest);
    const [from, to] = scale.map((time) => clock(time));
    first.textContent = from;
    last.textContent = to;
    const times = timed.map((hit) => timesOf(hit.metadata)).join(", ");
    track.setAttribute("aria-label", `Results at ${times}, from ${from} to ${to}`);
    track.replaceChildren(
      ...timed.map((hit) => {
        const [start, end] = spanOf(hit.metadata);
        const mark = make("span", {
          class: `span ${hit.type}`,
          title: `${timesOf(hit.metadata)}  ${hit.metadata.text}`,
          onclick: () => show(hit),
        });
        const [left, right] = [shareOf(start, scale), shareOf(end, scale)];
        mark.style.left = `min(${left * 100}%, calc(100% - ${MARK_PX}px))`;
        mark.style.width = `${(right - left) * 100}%`;
        mark.style.opacity = 0.45 + 0.55 * hit.similarity;
        return mark;
      }),
    );
  };
  const spans = timed.map((hit) => spanOf(hit.metadata));
  // Until the whole is known, or if it can't be, the results' own.
  const earliest = Math.min(...spans.map(([start]) => start));
  const latest = Math.max(...spans.map(([, end]) => end));
  place(earliest, latest);
  extentOf(group.id).then(
    (extent) => extent && place(Math.min(earliest, extent[0]), Math.max(latest, extent[1])),
    () => {},
  );
  return make("div", { class: "timeline" }, track, make("div", { class: "ends" }, first, last));
}

/** What a timeline shows: from zero, unless the times are far from it. */
function scaleOf(earliest, latest) {
  const far = earliest > FAR * Math.max(latest - earliest, SHORT_S);
  return [far ? earliest : Math.min(0, earliest), latest];
}

/** Where a time is on a scale, 0 to 1. By halves, since a whole length may exceed all numbers. */
function shareOf(time, [from, to]) {
  return (time / 2 - from / 2) / Math.max(to / 2 - from / 2, 0.5);
}
