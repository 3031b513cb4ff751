/** Numbers and names as people read them. */

const LATE_S = 2.5;

/** @param {number | null | undefined} rps */
export function rate(rps) {
  if (rps === null || rps === undefined) return "–";
  if (rps >= 1000) return `${(rps / 1000).toFixed(1)}k/s`;
  if (rps >= 10) return `${Math.round(rps)}/s`;
  if (rps >= 0.095) return `${rps.toFixed(1)}/s`;
  return rps > 0 ? `${rps.toFixed(2)}/s` : "0/s";
}

/** Rounded down: what failed once is not shown as 100 %. @param {number | null | undefined} share */
export function percent(share) {
  if (share === null || share === undefined) return "–";
  const value = Math.floor(share * 10000) / 100;
  return `${value === 100 || value === 0 ? value : value < 99 ? value.toFixed(1) : value.toFixed(2)} %`;
}

/** @param {number | null | undefined} value */
export function ms(value) {
  if (value === null || value === undefined) return "–";
  if (value >= 60000) return `${(value / 60000).toFixed(1)} min`;
  if (value >= 1000) return `${(value / 1000).toFixed(2)} s`;
  if (value >= 10) return `${Math.round(value)} ms`;
  return value >= 0.1 ? `${value.toFixed(1)} ms` : `${value.toFixed(2)} ms`;
}

/** @param {number | null | undefined} value */
export function us(value) {
  return value === null || value === undefined ? "–" : ms(value / 1000);
}

/** Where a call's time went: see telemetry/split.py. @param {Record<string, number>} parts */
export function timings(parts) {
  return Object.entries(parts)
    .map(([part, took]) => `${part} ${us(took)}`)
    .join(", ");
}

/** `Code(500): Internal Server Error` as `500 Internal Server Error`; a gRPC code by its name alone: see telemetry/shown.py. @param {string} text */
export function failure(text) {
  const found = /^Code\((\d+)\): (.+)$/s.exec(text);
  if (found === null) return text;
  return Number(found[1]) >= 100 ? `${found[1]} ${found[2]}` : found[2];
}

/** @param {number | null | undefined} seconds */
export function span(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const whole = Math.max(Math.floor(seconds), 0);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
}

/** @param {number} epoch seconds */
export function clock(epoch) {
  return new Date(epoch * 1000).toLocaleTimeString([], { hour12: false });
}

/** @param {number} epochUs microseconds */
export function clockMs(epochUs) {
  const at = new Date(epochUs / 1000);
  return `${at.toLocaleTimeString([], { hour12: false })}.${String(at.getMilliseconds()).padStart(3, "0")}`;
}

/** @param {number} count @param {string} noun */
export function plural(count, noun) {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

/** An app without the namespace that goes without saying. @param {string} name */
export function short(name) {
  return name.endsWith(".default") ? name.slice(0, -".default".length) : name || "(unknown)";
}

export const STATES = {
  ok: "succeeding",
  warn: "some calls fail",
  bad: "failing",
  idle: "no call in the last minute",
  unknown: "not known: a sidecar does not answer",
};

/** When a silent sidecar was heard last. @param {any} one @param {number} now */
export function silence(one, now) {
  const heard = one.heardAt === null ? "it was not heard since this dashboard began" : `last heard at ${clock(one.heardAt)}, ${span(now - one.heardAt)} ago`;
  return `did not answer for ${one.withinMs} ms; ${heard}`;
}

/** Whether a sidecar has been silent for longer than a busy machine makes one late. @param {any} one @param {number} now */
export function isLasting(one, now) {
  return one.heardAt === null || now - one.heardAt > LATE_S;
}
