/** All sidecars in a table, each with a page of its own. */

import { el, reconcile, replace, say, set } from "./dom.js";
import { plural, short, silence, span } from "./format.js";

const COLUMNS = ["App", "State", "Certificate", "App's port", "In flight", "Connections", "Policies", "Up for", "Engine", "Process"];
const LEVELS = { ready: "ok", silent: "bad", unknown: "idle" };

/** @param {any} one */
export const levelOf = (one) => LEVELS[/** @type {keyof typeof LEVELS} */ (one.state)] ?? "warn";

export class SidecarsView {
  constructor() {
    this.title = "Sidecars";
    this.count = el("p", { class: "hint" });
    this.body = el("tbody", {});
    this.table = el(
      "table",
      { class: "list" },
      el("caption", { class: "unseen" }, "Sidecars of this host"),
      el("thead", {}, el("tr", {}, COLUMNS.map((title) => el("th", { scope: "col" }, title)))),
      this.body,
    );
    this.root = el("section", {}, el("h1", {}, "Sidecars"), this.count, el("div", { class: "table-box" }, this.table));
  }

  query() {
    return {};
  }

  /** @param {any} picture */
  mesh(picture) {
    const silent = picture.sidecars.filter((/** @type {any} */ one) => one.state === "silent").length;
    this.table.hidden = picture.sidecars.length === 0;
    if (picture.sidecars.length === 0) say(this.count, "None runs here. One started by postern run appears within a second.");
    else say(this.count, `${plural(picture.sidecars.length, "sidecar")}${silent ? `, ${silent} of which did not answer` : ""}`);
    reconcile(
      this.body,
      picture.sidecars,
      (one) => one.instance,
      (one) =>
        el(
          "tr",
          {},
          el("th", { scope: "row" }, el("a", { href: `#/sidecars/${encodeURIComponent(one.instance)}` }, short(one.name))),
          COLUMNS.slice(1).map((title) => el("td", { "data-title": title })),
        ),
      (row, one) => update(row, one, picture.at),
    );
  }
}

/** @param {any} row @param {any} one @param {number} now */
function update(row, one, now) {
  set(row, { "data-state": levelOf(one) });
  const state = /** @type {Element} */ (row.children[1]);
  if (one.state === "silent") {
    replace(state, el("span", { class: "state", "data-state": "silent" }, silence(one, now)));
    for (const cell of [...row.children].slice(2)) say(cell, "–");
    say(row.children[9], one.pid);
    return;
  }
  const notes = one.notes ?? [];
  const text = one.state + (notes.length ? `, ${plural(notes.length, "note")}` : "");
  if (state.textContent !== text) replace(state, el("span", { class: "state", "data-state": levelOf(one), title: notes.join("\n") }, text));
  const { identity = {}, appState = {}, policy = {} } = one;
  const left = typeof identity.secondsLeft === "number" ? `ends in ${span(identity.secondsLeft)}` : (identity.state ?? "–");
  const healthy = appState.healthy === null || appState.healthy === undefined ? "" : appState.healthy ? ", healthy" : ", unhealthy";
  const cells = [
    left,
    appState.port ? `${appState.port} ${appState.protocol}, ${appState.state || "not known"}${healthy}` : "none",
    one.inFlight ?? "–",
    one.connections ?? "–",
    policy.isFaulty ? "the newest is faulty" : policy.generation === undefined ? "–" : `generation ${policy.generation}`,
    one.startedAt ? span(now - one.startedAt) : "–",
    one.engine ?? "–",
    one.pid,
  ];
  cells.forEach((cell, number) => say(row.children[number + 2], cell));
}
