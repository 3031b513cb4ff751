/** Calls of all sidecars, those under way too. */

import { el, reconcile, replace, say, set } from "./dom.js";
import { clockMs, timings, us } from "./format.js";
import { zoned } from "./sidecar-view.js";

const MOST = 300;
const MOST_RPS = 50; // of each sidecar
const FIELDS = [
  ["from", "From", "app"],
  ["to", "To", "app"],
  ["method", "Method", "GET"],
  ["path", "Path begins", "/items"],
  ["status", "HTTP status", "5xx"],
  ["grpc-status", "gRPC status", "UNAVAILABLE"],
  ["slower-than", "Slower than", "250ms"],
];
const WAYS = [
  ["outbound", "as callers see them"],
  ["inbound", "as callees see them"],
  ["both", "from both ends"],
];
const COLUMNS = ["When", "Caller → callee", "Call", "Answer", "Took", "Notes"];

export class CallsView {
  /** @param {() => void} changed the filters are others now */
  constructor(changed) {
    this.title = "Calls";
    this.changed = changed;
    /** @type {any[]} */
    this.kept = [];
    this.number = 0;
    this.isPaused = false;
    this.missed = 0;
    /** @type {Map<string, any>} calls by sidecar and id, of those that are kept */
    this.known = new Map();
    /** @type {Set<number>} */
    this.open = new Set();
    /** @type {Map<string, string>} */
    this.problems = new Map();
    this.inputs = FIELDS.map(([name, label, hint]) => el("label", {}, label, el("input", { name, placeholder: hint, autocomplete: "off", spellcheck: "false", size: 10 })));
    this.way = /** @type {HTMLSelectElement} */ (el("select", { name: "way", change: () => this.draw() }, WAYS.map(([value, text]) => el("option", { value }, text))));
    this.pause = el("button", { type: "button", click: () => this.togglePause() }, "Pause");
    this.form = /** @type {HTMLFormElement} */ (
      el(
        "form",
        {
          class: "filters",
          "aria-label": "Which calls",
          submit: (/** @type {Event} */ event) => {
            event.preventDefault();
            this.clear();
            this.changed();
          },
        },
        this.inputs,
        el("label", {}, "Shown", this.way),
        el("button", { type: "submit" }, "Apply"),
        this.pause,
        el("button", { type: "button", click: () => this.clear() }, "Clear"),
      )
    );
    this.told = el("p", { class: "hint" });
    this.body = el("tbody", {});
    this.table = el(
      "table",
      { class: "list calls" },
      el("caption", { class: "unseen" }, "Calls, the newest first"),
      el("thead", {}, el("tr", {}, COLUMNS.map((title) => el("th", { scope: "col" }, title)))),
      this.body,
    );
    this.none = el("div", { class: "empty" }, el("h2", {}, "No call yet"), el("p", {}, "Calls appear here as they begin, while this page is open. With a filter of statuses or of time they appear once they meet it. Nothing of headers, queries and bodies is shown."));
    this.root = el("section", {}, el("h1", {}, "Calls"), this.form, this.told, this.none, el("div", { class: "table-box" }, this.table));
    this.draw();
  }

  query() {
    /** @type {Record<string, string>} */
    const found = { tap: "1", "max-rps": String(MOST_RPS) };
    for (const [name, value] of new FormData(this.form)) if (name !== "way" && String(value).trim()) found[name] = String(value).trim();
    return found;
  }

  clear() {
    this.kept = [];
    this.known.clear();
    this.open.clear();
    this.missed = 0;
    this.problems.clear();
    this.draw();
  }

  togglePause() {
    this.isPaused = !this.isPaused;
    this.missed = this.isPaused ? 0 : this.missed;
    say(this.pause, this.isPaused ? "Go on" : "Pause");
    set(this.pause, { "aria-pressed": String(this.isPaused) });
    this.draw();
  }

  /** @param {any} told */
  calls(told) {
    for (const event of told.events) {
      if (event.event === "skipped") this.missed += event.calls;
      if (event.event === "open") this.problems.delete(event.instance);
      if (event.event === "problem") this.problems.set(event.instance, `${event.app}: ${event.text}`);
      if (event.event === "request" || event.event === "response" || event.event === "end") this.take(event);
    }
    this.missed += told.dropped;
    this.kept.sort((one, other) => other.began - one.began || other.number - one.number);
    for (const gone of this.kept.splice(MOST)) this.known.delete(gone.key);
    this.draw();
  }

  /** One row for a call, whatever is told of it. @param {any} event */
  take(event) {
    const key = `${event.instance} ${event.id}`;
    const known = this.known.get(key);
    if (known !== undefined) {
      Object.assign(known, event);
    } else if (!this.isPaused) {
      const sinceUs = event.duration_us ?? event.ttfb_us ?? 0;
      const call = { ...event, key, number: ++this.number, began: Date.parse(zoned(event.time)) - sinceUs / 1000 };
      this.kept.unshift(call);
      this.known.set(key, call);
    } else if (event.event === "end") {
      this.missed += 1;
    }
  }

  draw() {
    const way = this.way.value;
    const shown = this.kept.filter((call) => way === "both" || call.direction === way);
    this.table.hidden = shown.length === 0;
    this.none.hidden = shown.length > 0;
    const parts = [...this.problems.values()].slice(0, 3);
    if (this.missed) parts.push(`${this.missed} more calls were not shown: ${this.isPaused ? "the page is paused" : `more than ${MOST_RPS} a second of one sidecar`}`);
    say(this.told, parts.join(". "));
    const rows = shown.flatMap((call) => (this.open.has(call.number) ? [call, { details: call }] : [call]));
    reconcile(
      this.body,
      rows,
      (row) => (row.details ? `details ${row.details.number} ${row.details.event}` : `${row.number} ${row.event}`),
      (row) => (row.details ? details(row.details) : this.row(row)),
      (element, row) => {
        if (!row.details) set(element.firstElementChild.firstElementChild, { "aria-expanded": String(this.open.has(row.number)) });
      },
    );
  }

  /** @param {any} call */
  row(call) {
    const code = call.protocol === "grpc" ? call.grpc_code : call.status; // of what is under way, none, or an answer's that goes on
    const toggle = () => {
      if (!this.open.delete(call.number)) this.open.add(call.number);
      this.draw();
    };
    return el(
      "tr",
      { "data-state": stateOf(call) },
      el("th", { scope: "row", class: "mono" }, el("button", { type: "button", class: "link", click: toggle }, clockMs(call.began * 1000))),
      el("td", { "data-title": COLUMNS[1] }, `${name(call, "src")} → ${name(call, "dst")}`),
      el("td", { "data-title": COLUMNS[2], class: "path" }, call.protocol === "grpc" ? call.path : `${call.verb} ${call.path || "(path hidden)"}`),
      el("td", { "data-title": COLUMNS[3] }, code || "–"),
      el("td", { "data-title": COLUMNS[4], class: "mono" }, call.event === "end" ? us(call.duration_us) : "under way"),
      el("td", { "data-title": COLUMNS[5] }, notes(call).join(", ") ),
    );
  }
}

/** @param {any} call */
function stateOf(call) {
  if (call.event !== "end") return "idle";
  if (call.cause) return "bad";
  if (call.protocol === "grpc") return ["OK", "Ok", ""].includes(call.grpc_code ?? "") ? "ok" : "warn";
  return call.status >= 500 ? "bad" : call.status >= 400 ? "warn" : "ok";
}

/** @param {any} call */
function notes(call) {
  const found = [];
  if (call.event === "response") found.push(`answered after ${us(call.ttfb_us)}`);
  if (call.event !== "end") return found;
  if (call.cause) found.push(`${call.cause}, by ${call.made_by === "this-proxy" ? "this sidecar" : "the callee's"}`);
  if (call.attempts > 1) found.push(`${call.attempts} attempts`);
  if (call.mtls === false) found.push("no mutual TLS");
  return found;
}

/** @param {any} call */
function details(call) {
  const role = call.direction === "inbound" ? "Caller" : "Callee";
  const lock = call.event !== "end" ? "under way" : call.mtls === null ? "not reached" : call.mtls ? "mutual TLS" : "no mutual TLS";
  const rows = [
    ["Seen by", `${call.app}'s sidecar, ${call.direction}`],
    [role, `${call.peer || "not proven"}, ${lock}`],
    ["Access", call.decision ? `${call.event !== "end" ? "" : call.cause === "denied" ? "denied: " : "allowed: "}${call.decision}` : "no rule was asked"],
    ["Policies", call.policies?.join(", ") || "none"],
    ...(call.tried ?? []).map((/** @type {any} */ one, /** @type {number} */ at) => [`Attempt ${call.attempts - call.tried.length + at + 1}`, `${one.endpoint || "no endpoint"} ${[one.cause, one.grpc_code ?? one.status, one.detail].filter(Boolean).join(" ")}, ${us(one.took_us)}`]),
    ...(call.event === "end"
      ? [
          ["Time", timings(call.timings_us)],
          ["Bytes", `${call.bytes_in} sent, ${call.bytes_out} answered`],
        ]
      : []),
  ];
  const list = el("dl", { class: "facts-list tall" }, rows.map(([title, text]) => el("div", {}, el("dt", {}, title), el("dd", {}, text))));
  const trace = el("div", {}, el("dt", {}, "Trace"), el("dd", {}));
  replace(/** @type {Element} */ (trace.lastElementChild), call.trace_id ? el("a", { href: `#/traces/${encodeURIComponent(call.trace_id)}` }, call.trace_id) : "none", call.sampled ? "" : " (not sampled)");
  list.append(trace);
  return el("tr", { class: "details" }, el("td", { colspan: COLUMNS.length }, list));
}

/** @param {any} call @param {"src" | "dst"} end */
function name(call, end) {
  const namespace = call[`${end}_namespace`];
  if (!call[end]) return "?";
  return !namespace || namespace === "default" ? call[end] : `${call[end]}.${namespace}`;
}
