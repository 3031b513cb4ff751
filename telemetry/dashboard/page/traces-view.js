/** The traces that sidecars keep in memory, the newest first. */

import { el, reconcile, say, set } from "./dom.js";
import { clock, failure, plural, us } from "./format.js";
import { ask } from "./session.js";

const REFRESH_MS = 2000;
const COLUMNS = ["Started", "Trace", "Apps", "Spans", "Took", "Result"];

export class TracesView {
  constructor() {
    this.title = "Traces";
    this.app = el("input", { name: "app", placeholder: "app", autocomplete: "off", spellcheck: "false", size: 12 });
    this.slower = el("input", { name: "slower-than", placeholder: "250ms", autocomplete: "off", spellcheck: "false", size: 8 });
    this.errors = /** @type {HTMLInputElement} */ (el("input", { type: "checkbox", name: "error", value: "1", change: () => void this.refresh() }));
    this.live = /** @type {HTMLInputElement} */ (el("input", { type: "checkbox", checked: true }));
    this.form = /** @type {HTMLFormElement} */ (
      el(
        "form",
        {
          class: "filters",
          "aria-label": "Which traces",
          submit: (/** @type {Event} */ event) => {
            event.preventDefault();
            void this.refresh();
          },
        },
        el("label", {}, "App", this.app),
        el("label", {}, "Slower than", this.slower),
        el("label", { class: "check" }, this.errors, "With errors"),
        el("button", { type: "submit" }, "Apply"),
        el("label", { class: "check" }, this.live, "Live"),
      )
    );
    this.told = el("p", { class: "hint" });
    this.body = el("tbody", {});
    this.table = el(
      "table",
      { class: "list", hidden: true },
      el("caption", { class: "unseen" }, "Traces, the newest first"),
      el("thead", {}, el("tr", {}, COLUMNS.map((title) => el("th", { scope: "col" }, title)))),
      this.body,
    );
    this.none = el(
      "div",
      { class: "empty", hidden: true },
      el("h2", {}, "No trace in memory"),
      el("p", {}, "Each sidecar keeps the spans of its last sampled calls, and of others that failed or were slow. Make a call, or raise the sampling rate of the Configuration:"),
      el("pre", {}, 'spec:\n  tracing:\n    samplingRate: "1"'),
    );
    this.root = el("section", {}, el("h1", {}, "Traces"), this.form, this.told, this.none, el("div", { class: "table-box" }, this.table));
    this.isOver = false;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.timer = undefined;
    void this.keep();
  }

  query() {
    return {};
  }

  end() {
    this.isOver = true;
    clearTimeout(this.timer);
  }

  async keep() {
    if (this.live.checked || this.body.childElementCount === 0) await this.refresh();
    if (!this.isOver) this.timer = setTimeout(() => void this.keep(), REFRESH_MS);
  }

  async refresh() {
    /** @type {Record<string, string>} */
    const query = {};
    for (const [name, value] of new FormData(this.form)) if (String(value).trim()) query[name] = String(value).trim();
    try {
      const told = await ask("/api/traces", query);
      if (!this.isOver) this.show(told);
    } catch (error) {
      if (!this.isOver) say(this.told, error instanceof Error ? error.message : "The traces are not known.");
    }
  }

  /** @param {any} told */
  show(told) {
    const parts = [];
    if (told.traces.length) parts.push(`${told.isCut ? "the newest " : ""}${plural(told.traces.length, "trace")}`);
    parts.push(...told.problems);
    say(this.told, parts.join(". "));
    this.table.hidden = told.traces.length === 0;
    this.none.hidden = told.traces.length > 0;
    const longest = Math.max(...told.traces.map((/** @type {any} */ one) => one.duration_us), 1);
    reconcile(
      this.body,
      told.traces,
      (one) => one.trace_id,
      (one) =>
        el(
          "tr",
          {},
          el("td", { class: "mono", "data-title": "Started" }),
          el("th", { scope: "row", class: "path" }, el("a", { href: `#/traces/${encodeURIComponent(one.trace_id)}` })),
          el("td", { "data-title": "Apps" }),
          el("td", { "data-title": "Spans" }),
          el("td", { "data-title": "Took", class: "took" }, el("span", { class: "bar-track", "aria-hidden": "true" }, el("span", {})), el("span", { class: "mono" })),
          el("td", { "data-title": "Result" }),
        ),
      (row, one) => {
        const [begun, root, apps, spans, took, result] = row.children;
        set(row, { "data-state": one.errors ? "bad" : "ok" });
        say(begun, clock(one.started_us / 1e6));
        say(root.firstElementChild, `${one.root.src ? `${one.root.src}: ` : ""}${one.root.name || one.trace_id}`);
        say(apps, one.apps.length > 4 ? `${one.apps.slice(0, 3).join(", ")} and ${one.apps.length - 3} more` : one.apps.join(", "));
        say(spans, one.spans);
        say(took.lastElementChild, us(one.duration_us));
        took.firstElementChild.firstElementChild.style.setProperty("width", `${Math.max((one.duration_us / longest) * 100, 1).toFixed(1)}%`);
        say(result, one.errors ? `${plural(one.errors, "error")}: ${failure(one.error)}` : one.root.status || "ok");
      },
    );
  }
}
