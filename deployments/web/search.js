/** A search and its answer, as hits in groups by media item. */

import { call } from "./api.js";
import { requestOf } from "./state.js";

export async function search(state, signal) {
  const request = requestOf(state);
  const answer = await call(request.path, { body: request.body, signal });
  return { state, request, answer, groups: groupsOf(hitsOf(state, answer)) };
}

/** The neighbours of each hit of a search, by `nameOf`. */
export async function contextsOf(state) {
  const request = requestOf(state, { context: 2 });
  const answer = await call(request.path, { body: request.body });
  return new Map(hitsOf(state, answer).map((hit) => [nameOf(hit), hit.context]));
}

export const nameOf = (hit) =>
  JSON.stringify([hit.type, String(hit.metadata.media_item_id), String(hit.metadata.segment_id)]);

/** Best first. Scores of several types are compared where they mean the same in each. */
function hitsOf(state, answer) {
  const responses = answer.responses ?? [answer];
  const hits = responses.flatMap((response) =>
    response.results.map((result) => ({ ...result, type: response.embedding_type })),
  );
  if (responses.length > 1) {
    if (state.mode === "semantic") hits.sort((a, b) => a.distance - b.distance);
    else hits.sort((a, b) => a.index - b.index || a.distance - b.distance);
  }
  return hits.slice(0, state.k);
}

function groupsOf(hits) {
  const groups = new Map();
  for (const hit of hits) {
    // 1 and "1" name the same media item.
    const id = String(hit.metadata.media_item_id);
    if (!groups.has(id)) groups.set(id, { id, hits: [] });
    groups.get(id).hits.push(hit);
  }
  return [...groups.values()];
}

const ends = new Map();

/** The first and the last second of a media item; null if none of its segments has a time. */
export function extentOf(id) {
  if (!ends.has(id)) {
    const path = `media/${encodeURIComponent(id)}/segments?limit=1`;
    const found = call(path).then((page) =>
      page.end_time === null ? null : [page.start_time, page.end_time],
    );
    ends.set(id, found);
    found.catch(() => ends.delete(id));
  }
  return ends.get(id);
}
