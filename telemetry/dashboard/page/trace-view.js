/** One trace as a waterfall. */

import { el, replace, say } from "./dom.js";
import { clockMs, failure, plural, timings, us } from "./format.js";
import { ask } from "./session.js";

const AGAIN_MS = 3000; // spans of calls that go on come later
const TIMES = 5;
const HUES = 6;

export class TraceView {
  /** @param {string} traceId */
  constructor(traceId) {
    this.title = "Trace";
    this.traceId = traceId;
    this.told = el("p", { class: "hint" }, "Asking the sidecars …");
    this.links = el("p", { class: "links" });
    this.rows = el("div", { class: "table-box" });
    this.root = el("section", { class: "trace" }, el("p", { class: "crumb" }, el("a", { href: "#/traces" }, "Traces")), el("h1", { class: "mono" }, traceId), this.told, this.links, this.rows);
    this.isOver = false;
    this.left = TIMES;
    this.shown = "";
    /** @type {Set<string>} */
    this.open = new Set();
    void this.refresh();
  }

  query() {
    return {};
  }

  end() {
    this.isOver = true;
    clearTimeout(this.timer);
  }

  async refresh() {
    try {
      const told = await ask("/api/trace", { id: this.traceId });
      if (!this.isOver) this.show(told);
    } catch (error) {
      if (!this.isOver) say(this.told, error instanceof Error ? error.message : "The trace is not known.");
    }
    this.left -= 1;
    if (!this.isOver && this.left > 0) this.timer = setTimeout(() => void this.refresh(), AGAIN_MS);
  }

  /** @param {any} told */
  show(told) {
    const text = JSON.stringify(told);
    if (text === this.shown) return;
    this.shown = text;
    replace(this.links, told.zipkin ? el("a", { href: told.zipkin, target: "_blank", rel: "noopener noreferrer" }, "The same trace in Zipkin") : null);
    const missing = told.problems.map((/** @type {string} */ one) => ` ${one}.`).join("");
    if (!told.rows.length) {
      say(this.told, `No sidecar here remembers this trace.${missing}`);
      replace(this.rows, el("div", { class: "empty" }, el("h2", {}, "It is gone"), el("p", {}, "Sidecars keep their last spans in memory, and forget the oldest. What was sampled may be in your collector.")));
      return;
    }
    say(this.told, `Started at ${clockMs(told.began_us)}, took ${us(told.took_us)}. ${plural(told.rows.length, "span")} of ${plural(told.services.length, "app")}, ${told.errors ? plural(told.errors, "error") : "no error"}.${told.left_out ? ` ${plural(told.left_out, "span")} more left out.` : ""}${missing}`);
    replace(this.rows, this.table(told));
  }

  /** @param {any} told */
  table(told) {
    const body = el("tbody", {});
    const rows = told.rows.map((/** @type {any} */ row) => this.row(row, told));
    body.append(...rows.flat());
    return el(
      "table",
      { class: "waterfall" },
      el("caption", { class: "unseen" }, "Spans, each below its parent"),
      el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Span"), el("th", { scope: "col", class: "axis" }, scale(told.took_us)), el("th", { scope: "col" }, "Took"))),
      body,
    );
  }

  /** @param {any} row @param {any} told */
  row(row, told) {
    const key = `${row.id} ${row.kind}`;
    const extra = details(row);
    extra.hidden = !this.open.has(key);
    const toggle = el(
      "button",
      {
        type: "button",
        class: "link",
        "aria-expanded": String(!extra.hidden),
        click: () => {
          extra.hidden = !extra.hidden;
          toggle.setAttribute("aria-expanded", String(!extra.hidden));
          if (extra.hidden) this.open.delete(key);
          else this.open.add(key);
        },
      },
      row.name,
    );
    const other = row.remote ? ` ${row.kind === "server" ? "←" : "→"} ${row.remote}` : "";
    const name = el(
      "th",
      { scope: "row" },
      el("span", { class: "unseen" }, `level ${row.depth + 1}: `),
      el("span", { class: "app", "data-hue": told.services.indexOf(row.service) % HUES }, row.service),
      el("span", { class: "kind" }, `${row.kind}${other}`),
      toggle,
      row.orphan ? el("span", { class: "kind" }, "its parent was not seen") : null,
      row.error ? el("span", { class: "error" }, `✕ ${failure(row.error)}`) : null,
    );
    name.style.setProperty("--depth", String(Math.min(row.depth, 12)));
    const bar = el("span", { class: "bar-span", "data-hue": told.services.indexOf(row.service) % HUES, "data-error": Boolean(row.error) });
    const whole = Math.max(told.took_us, 1);
    bar.style.setProperty("left", `${((row.at_us / whole) * 100).toFixed(3)}%`);
    bar.style.setProperty("width", `${Math.max((row.took_us / whole) * 100, 0.25).toFixed(3)}%`);
    const ticks = row.events.map((/** @type {any} */ event) => {
      const tick = el("span", { class: "tick", title: event.text });
      tick.style.setProperty("left", `${((event.at_us / whole) * 100).toFixed(3)}%`);
      return tick;
    });
    const track = el("td", { class: "track" }, el("div", { "aria-hidden": "true" }, bar, ticks), el("span", { class: "unseen" }, `from ${us(row.at_us)}`));
    return [el("tr", { "data-error": Boolean(row.error) }, name, track, el("td", { class: "mono", "data-title": "Took" }, us(row.took_us))), extra];
  }
}

/** @param {number} took */
function scale(took) {
  return [0, 0.25, 0.5, 0.75].map((part) => el("span", {}, us(took * part)));
}

/** @param {any} row */
function details(row) {
  const call = row.call ?? {};
  const rows = [
    ["Started", `${us(row.at_us)} after the first span`],
    ...row.events.map((/** @type {any} */ event) => ["Event", `${event.text} (+${us(event.at_us)})`]),
    ...(call.decision ? [["Access", call.decision]] : []),
    ...(call.peer ? [["Other side", call.peer]] : []),
    ...(call.policies?.length ? [["Policies", call.policies.join(", ")]] : []),
    ...(call.tried ?? []).map((/** @type {any} */ one, /** @type {number} */ at) => [`Attempt ${at + 1}`, `${one.endpoint || "no endpoint"} ${[one.cause, one.grpc_code ?? one.status, one.detail].filter(Boolean).join(" ")}, ${us(one.took_us)}`]),
    ...(call.timings_us ? [["Time", timings(call.timings_us)]] : []),
    ...Object.entries(row.tags),
  ];
  return el("tr", { class: "details" }, el("td", { colspan: 3 }, el("dl", { class: "facts-list tall" }, rows.map(([title, text]) => el("div", {}, el("dt", {}, title), el("dd", {}, text))))));
}
