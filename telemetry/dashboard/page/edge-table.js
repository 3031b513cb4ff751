/** The graph as a table: the same edges, for screen readers, for narrow screens, and for whoever prefers it. */

import { el, reconcile, say, set } from "./dom.js";
import { STATES, ms, percent, rate, short, span } from "./format.js";
import { edgeId } from "./graph.js";

const COLUMNS = ["Caller", "Callee", "State", "Rate", "Success rate", "p50", "p95", "p99", "Secured", "Last call"];

export class EdgeTable {
  /** @param {(selection: import("./graph.js").Selection) => void} select */
  constructor(select) {
    this.select = select;
    this.body = el("tbody", {});
    this.none = el("p", { class: "hint" }, "No call yet. Edges appear with the first one.");
    this.table = el(
      "table",
      { class: "list edges-table" },
      el("caption", { class: "unseen" }, "Edges: who calls whom, in the last minute"),
      el("thead", {}, el("tr", {}, COLUMNS.map((title) => el("th", { scope: "col" }, title)))),
      this.body,
    );
    this.root = el("div", { class: "table-box" }, this.none, this.table);
  }

  /** @param {any} picture @param {import("./graph.js").Selection | null} selected @param {Set<string>} near */
  update(picture, selected, near) {
    const edges = picture.edges.filter((/** @type {any} */ edge) =>
      selected === null ? near.size === 0 || near.has(edge.src) || near.has(edge.dst) : selected.kind === "edge" ? selected.id === edgeId(edge) : edge.src === selected.id || edge.dst === selected.id,
    );
    this.none.hidden = picture.edges.length > 0;
    this.table.hidden = picture.edges.length === 0;
    reconcile(
      this.body,
      edges,
      edgeId,
      (edge) => this.create(edge),
      (row, edge) => update(row, edge, selected),
    );
  }

  /** @param {any} edge */
  create(edge) {
    const id = edgeId(edge);
    return el(
      "tr",
      {},
      el("th", { scope: "row" }, el("button", { type: "button", class: "link", click: () => this.select({ kind: "edge", id }) }, short(edge.src))),
      COLUMNS.slice(1).map((title) => el("td", { "data-title": title })),
    );
  }
}

/** @param {any} row @param {any} edge @param {import("./graph.js").Selection | null} selected */
function update(row, edge, selected) {
  const isChosen = selected?.kind === "edge" && selected.id === edgeId(edge);
  set(row, { "data-state": edge.state });
  set(row.firstElementChild.firstElementChild, {
    "aria-pressed": String(isChosen),
    "aria-label": `${short(edge.src)} to ${short(edge.dst)}: details`,
  });
  const lock = edge.secured === null ? edge.reason || "–" : edge.secured ? "mutual TLS" : `no: ${edge.reason}`;
  const seen = edge.lastSeenAgoS === null ? "–" : edge.lastSeenAgoS < 2 ? "now" : `${span(edge.lastSeenAgoS)} ago`;
  const cells = [
    short(edge.dst),
    STATES[/** @type {keyof typeof STATES} */ (edge.state)],
    rate(edge.calls ? edge.rps : null),
    percent(edge.success),
    ms(edge.p50Ms),
    ms(edge.p95Ms),
    ms(edge.p99Ms),
    lock,
    seen,
  ];
  cells.forEach((text, number) => say(row.children[number + 1], text));
}
