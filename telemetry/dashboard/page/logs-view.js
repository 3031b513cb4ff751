/** The log files of one app and its sidecar, as they grow. */

import { el, reconcile, replace, say, set } from "./dom.js";
import { plural, short } from "./format.js";

const MOST = 2000;

export class LogsView {
  /** @param {string} instance */
  constructor(instance) {
    this.title = "Logs";
    this.instance = instance;
    /** @type {string[]} */
    this.files = [];
    this.kind = /** @type {HTMLSelectElement} */ (el("select", { change: () => this.filter() }, el("option", { value: "" }, "App and sidecar"), el("option", { value: "app" }, "App"), el("option", { value: "sidecar" }, "Sidecar")));
    this.choice = /** @type {HTMLSelectElement} */ (
      el("select", {
        change: () => {
          location.hash = `#/logs/${encodeURIComponent(this.choice.value)}`;
        },
      })
    );
    this.text = /** @type {HTMLInputElement} */ (el("input", { type: "search", placeholder: "Lines with", autocomplete: "off", spellcheck: "false", input: () => this.filter() }));
    this.follow = /** @type {HTMLInputElement} */ (el("input", { type: "checkbox", checked: true }));
    this.lines = el("ol", { class: "log", role: "log", "aria-live": "off", tabindex: 0, "aria-label": "Lines" });
    this.told = el("p", { class: "hint" });
    this.none = el("div", { class: "empty", hidden: true });
    this.root = el(
      "section",
      { class: "logs" },
      el("h1", {}, "Logs"),
      el("form", { class: "filters", "aria-label": "Which lines", submit: (/** @type {Event} */ event) => event.preventDefault() }, el("label", {}, "Sidecar", this.choice), el("label", {}, "Of", this.kind), el("label", {}, "Filter", this.text), el("label", { class: "check" }, this.follow, "Follow")),
      this.told,
      this.none,
      this.lines,
    );
  }

  query() {
    /** @type {Record<string, string>} */
    const found = this.instance ? { log: this.instance } : {};
    return found;
  }

  /** @param {any} picture */
  mesh(picture) {
    const rows = picture.sidecars.length ? picture.sidecars : [{ instance: "", name: "none runs", pid: "" }];
    reconcile(
      this.choice,
      rows,
      (one) => one.instance,
      (one) => el("option", { value: one.instance }),
      (option, one) => say(option, rows.filter((/** @type {any} */ other) => other.name === one.name).length > 1 ? `${short(one.name)}, process ${one.pid}` : short(one.name)),
    );
    if (!this.instance && picture.sidecars.length) location.replace(`#/logs/${encodeURIComponent(picture.sidecars[0].instance)}`);
    else if (this.choice.value !== this.instance) this.choice.value = this.instance;
    const isGone = this.instance && !picture.sidecars.some((/** @type {any} */ one) => one.instance === this.instance);
    if (isGone) this.explain("It does not run any more", ["What it logged stays in its files. Choose another sidecar above."]);
    if (!picture.sidecars.length) this.explain("No sidecar runs here", ["Logs of running apps appear here."]);
  }

  /** @param {any} told */
  logs(told) {
    for (const event of told.events) {
      if (event.instance !== this.instance) continue;
      if (event.event === "problem") say(this.told, event.text);
      if (event.event === "files") this.showFiles(event);
      if (event.event === "lines") this.add(event);
    }
  }

  /** @param {any} event */
  showFiles(event) {
    this.lines.replaceChildren(); // the stream began anew, and with it the last lines
    const where = (/** @type {any} */ file) => `${file.kind}: ${file.path || "the latest lines, kept in memory"}`;
    const hasApp = event.files.some((/** @type {any} */ file) => file.kind === "app");
    const lost = hasApp ? [] : ["app: kept nowhere; appLogDestination: fileAndConsole of a run file keeps it"];
    say(this.told, [...event.files.map(where), ...lost].join(" · "));
    this.none.hidden = true;
    this.lines.hidden = false;
  }

  /** @param {string} title @param {(string | HTMLElement)[]} parts */
  explain(title, parts) {
    this.lines.hidden = true;
    this.none.hidden = false;
    replace(this.none, el("h2", {}, title), ...parts.map((part) => (typeof part === "string" ? el("p", {}, part) : part)));
  }

  /** @param {any} event */
  add(event) {
    if (event.leftOut) this.lines.append(el("li", { class: "gap" }, `${plural(event.leftOut, "line")} left out`));
    const made = event.lines.map((/** @type {string} */ line) => {
      const item = el("li", { "data-kind": event.kind, "data-level": levelOf(line) }, el("span", { class: "kind" }, event.kind), el("span", { class: "text" }, line));
      item.hidden = !this.wants(item, line);
      return item;
    });
    this.lines.append(...made);
    while (this.lines.childElementCount > MOST) this.lines.firstElementChild?.remove();
    if (this.follow.checked) this.lines.scrollTop = this.lines.scrollHeight;
  }

  /** @param {HTMLElement} item @param {string} line */
  wants(item, line) {
    const kind = this.kind.value;
    return (!kind || item.dataset.kind === kind) && line.toLowerCase().includes(this.text.value.trim().toLowerCase());
  }

  filter() {
    for (const item of this.lines.children) {
      if (item.classList.contains("gap")) continue;
      /** @type {HTMLElement} */ (item).hidden = !this.wants(/** @type {HTMLElement} */ (item), item.lastElementChild?.textContent ?? "");
    }
    set(this.lines, { "data-filtered": Boolean(this.text.value || this.kind.value) });
  }
}

/** @param {string} line */
function levelOf(line) {
  const found = /\b(?:level=|"level":\s*")(error|fatal|warn(?:ing)?)\b/.exec(line);
  return found === null ? false : found[1].startsWith("warn") ? "warn" : "bad";
}
