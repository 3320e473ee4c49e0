/** Texts and times as people read them, and back. */

export const TYPES = { transcript: "Transcript", frame: "Frame", clip: "Clip" };

/** Beyond it, tens of thousands of years, a clock would say nothing. */
const LONGEST_CLOCK_S = 1e12;

export function clock(seconds) {
  if (Math.abs(seconds) >= LONGEST_CLOCK_S) return `${seconds.toExponential(1)} s`;
  const whole = Math.floor(Math.abs(seconds));
  const sign = seconds < 0 && whole > 0 ? "-" : "";
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (number) => String(number).padStart(2, "0");
  return sign + (hours ? `${hours}:${two(minutes)}:${two(rest)}` : `${two(minutes)}:${two(rest)}`);
}

/** The seconds of "90", "1:30" or "1:02:03"; null of nothing, NaN of anything else. */
export function secondsOf(text) {
  const given = text.trim();
  if (given === "") return null;
  if (!/^(\d+:){0,2}\d+(\.\d+)?$/.test(given)) return NaN;
  return given.split(":").reduce((sum, part) => 60 * sum + Number(part), 0);
}

/** Where a segment begins and ends; one time lasts no time. Null without any. */
export function spanOf(segment) {
  const start = segment.start_time ?? segment.end_time;
  return start === null || start === undefined ? null : [start, segment.end_time ?? start];
}

export function timesOf(segment) {
  const span = spanOf(segment);
  if (span === null) return "no time";
  const [start, end] = span.map((seconds) => clock(seconds));
  return start === end ? start : `${start} – ${end}`;
}

/** The text in parts, every second one marked. Offsets count code points, not UTF-16 units. */
export function markedParts(text, highlights) {
  const points = Array.from(text);
  const parts = [];
  let done = 0;
  for (const [start, end] of highlights ?? []) {
    parts.push(points.slice(done, start).join(""), points.slice(start, end).join(""));
    done = end;
  }
  parts.push(points.slice(done).join(""));
  return parts;
}

export const count = (number, one, many = `${one}s`) =>
  `${number.toLocaleString("en")} ${number === 1 ? one : many}`;

export function ago(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s ago`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min ago`;
  if (seconds < 172_800) return `${Math.round(seconds / 3600)} h ago`;
  return count(Math.round(seconds / 86_400), "day") + " ago";
}

/** A link into the player, to the second in which the segment begins; null without a template. */
export function playerLink(template, segment) {
  if (!template) return null;
  const start = Math.max(0, Math.floor(spanOf(segment)?.[0] ?? 0));
  const values = { "{media_item_id}": String(segment.media_item_id), "{start_time}": String(start) };
  return template.replace(/\{media_item_id\}|\{start_time\}/g, (place) =>
    encodeURIComponent(values[place]),
  );
}
