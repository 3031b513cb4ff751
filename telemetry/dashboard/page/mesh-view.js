/** The mesh: what needs a look, the graph with its twin in a table, and what is known of what was selected. */

import { el, reconcile, replace, say, set } from "./dom.js";
import { EdgeTable } from "./edge-table.js";
import { isLasting, percent, plural, rate, short, silence, span } from "./format.js";
import { Graph, describeEdge, edgeId } from "./graph.js";
import { Selected } from "./selected.js";

const SOON_S = 300; // a certificate that ends so soon was not renewed in time
const MOST = 8;
const NAMED = 4; // that share a fault; others are counted
const NARROW = globalThis.matchMedia("(max-width: 720px)");

export class MeshView {
  /** @param {string} chosen the app that the address names */
  constructor(chosen) {
    this.title = "Mesh";
    /** @type {import("./graph.js").Selection | null} */
    this.selection = chosen ? { kind: "node", id: chosen } : null;
    /** @type {any} */
    this.picture = null;
    this.graph = new Graph((selection) => this.select(selection, true), (selection, at) => this.hover(selection, at));
    this.table = new EdgeTable((selection) => this.select(selection, true));
    this.selected = new Selected((selection) => this.select(selection, false));
    this.figures = el("dl", { class: "figures" });
    this.attention = el("ul", { class: "attention" });
    this.attentionBox = el("section", { class: "attention-box", "aria-labelledby": "attention-title", hidden: true }, el("h2", { id: "attention-title" }, "Needs a look"), this.attention);
    this.calm = el("p", { class: "hint calm" }, "Nothing needs a look: every sidecar answers, and calls succeed. Choose an app or a line to see more of it.");
    this.filter = /** @type {HTMLInputElement} */ (
      el("input", { type: "search", id: "filter", placeholder: "Filter apps", "aria-label": "Filter apps", autocomplete: "off", spellcheck: "false", input: () => this.draw() })
    );
    this.asGraph = el("button", { type: "button", click: () => this.show(false) }, "Graph");
    this.asTable = el("button", { type: "button", click: () => this.show(true) }, "Table");
    this.graphBox = el("div", { class: "graph-box" }, this.graph.root, legend());
    this.tooMany = el("p", { class: "hint", hidden: true }, "There are too many apps to draw. The table has them all.");
    this.stage = el("div", { class: "stage" }, this.tooMany, this.graphBox, this.table.root);
    this.card = el("div", { class: "card", "aria-hidden": "true", hidden: true });
    this.content = el(
      "div",
      { class: "mesh", hidden: true },
      el("h1", { class: "unseen" }, "Mesh"),
      this.figures,
      el(
        "div",
        { class: "tools" },
        this.filter,
        el("div", { class: "switch", role: "group", "aria-label": "Show as" }, this.asGraph, this.asTable),
      ),
      el("div", { class: "split" }, this.stage, el("div", { class: "side" }, this.selected.root, this.attentionBox, this.calm)),
      this.card,
    );
    this.empty = el("div", {}, el("p", { class: "empty" }, "Asking the sidecars …"));
    this.root = el("div", {}, this.empty, this.content);
    this.root.addEventListener("keydown", (event) => {
      if (/** @type {KeyboardEvent} */ (event).key === "Escape") this.select(null, false);
    });
    this.show(NARROW.matches);
  }

  query() {
    return {};
  }

  end() {
    this.selected.end();
  }

  /** @param {boolean} isTable */
  show(isTable) {
    this.graphBox.hidden = isTable;
    this.table.root.hidden = !isTable;
    set(this.asGraph, { "aria-pressed": String(!isTable) });
    set(this.asTable, { "aria-pressed": String(isTable) });
    this.card.hidden = true;
  }

  /** @param {any} picture */
  mesh(picture) {
    this.picture = picture;
    const isEmpty = picture.sidecars.length === 0;
    if (this.content.hidden !== isEmpty || !this.empty.hidden) {
      this.content.hidden = isEmpty;
      this.empty.hidden = !isEmpty;
      if (isEmpty) replace(this.empty, nothingRuns());
    }
    if (!isEmpty) this.draw();
  }

  draw() {
    const picture = this.picture;
    if (picture === null) return;
    const sidecars = byApp(picture);
    this.forgetGone(picture);
    this.drawFigures(picture);
    this.drawAttention(picture, sidecars);
    const near = this.near(picture);
    this.tooMany.hidden = picture.layout !== null;
    if (picture.layout !== null) this.graph.update(picture, this.selection, near, sidecars);
    this.table.update(picture, this.selection, near);
    this.selected.update(picture, this.selection, sidecars);
  }

  /** @param {any} picture */
  forgetGone(picture) {
    const chosen = this.selection;
    if (chosen === null) return;
    const isThere = chosen.kind === "node" ? picture.nodes.some((/** @type {any} */ node) => node.id === chosen.id) : picture.edges.some((/** @type {any} */ edge) => edgeId(edge) === chosen.id);
    if (!isThere) this.selection = null;
  }

  /** Apps that match the filter, or the selected one with those that it talks to. @param {any} picture @returns {Set<string>} */
  near(picture) {
    const found = new Set();
    const chosen = this.selection;
    const text = this.filter.value.trim().toLowerCase();
    if (chosen !== null) {
      for (const edge of picture.edges) {
        if (chosen.kind === "edge" ? edgeId(edge) === chosen.id : edge.src === chosen.id || edge.dst === chosen.id) found.add(edge.src).add(edge.dst);
      }
      if (chosen.kind === "node") found.add(chosen.id);
    } else if (text) {
      const matches = picture.nodes.filter((/** @type {any} */ node) => node.id.toLowerCase().includes(text));
      for (const node of matches) found.add(node.id);
      if (!matches.length) found.add("\n"); // nothing matches: all is dimmed
    }
    return found;
  }

  /** @param {any} picture */
  drawFigures(picture) {
    const told = picture.nodes.filter((/** @type {any} */ node) => node.calls);
    const calls = told.reduce((/** @type {number} */ sum, /** @type {any} */ node) => sum + node.calls, 0);
    const good = told.reduce((/** @type {number} */ sum, /** @type {any} */ node) => sum + node.calls * (node.success ?? 0), 0);
    const rps = told.reduce((/** @type {number} */ sum, /** @type {any} */ node) => sum + (node.rps ?? 0), 0);
    const lives = picture.sidecars.map((/** @type {any} */ one) => one.identity?.secondsLeft).filter((/** @type {any} */ left) => typeof left === "number");
    const used = picture.edges.filter((/** @type {any} */ edge) => edge.state !== "unknown" && edge.total && edge.secured !== null);
    const locked = used.filter((/** @type {any} */ edge) => edge.secured).length;
    const answering = picture.sidecars.filter((/** @type {any} */ one) => one.state !== "silent").length;
    const rows = [
      ["Sidecars that answer", `${answering} of ${picture.sidecars.length}`],
      ["Calls", rate(rps)],
      ["Success rate", calls ? percent(good / calls) : "–"],
      ["Edges over mutual TLS", `${locked} of ${used.length}`],
      ["Next certificate expires in", lives.length ? span(Math.min(...lives)) : "–"],
    ];
    reconcile(
      this.figures,
      rows,
      (row) => row[0],
      (row) => el("div", {}, el("dt", {}, row[0]), el("dd", {})),
      (element, row) => say(element.lastElementChild, row[1]),
    );
  }

  /** @param {any} picture @param {Map<string, any[]>} sidecars */
  drawAttention(picture, sidecars) {
    const found = problems(picture, sidecars);
    this.attentionBox.hidden = found.length === 0;
    this.calm.hidden = found.length > 0 || this.selection !== null;
    const shown = found.slice(0, MOST);
    if (found.length > MOST) shown.push({ key: "more", level: "warn", text: `and ${plural(found.length - MOST, "more")} in the table and the list of sidecars`, selection: null });
    reconcile(
      this.attention,
      shown,
      (one) => one.key,
      (one) => el("li", {}, one.selection === null ? el("span", {}) : el("button", { type: "button", class: "link", click: () => this.select(one.selection, false) })),
      (element, one) => {
        set(element, { "data-level": one.level });
        say(element.firstElementChild, one.text);
      },
    );
  }

  /** @param {import("./graph.js").Selection | null} selection @param {boolean} isToggle */
  select(selection, isToggle) {
    const before = this.selection;
    const isSame = before !== null && selection !== null && before.kind === selection.kind && before.id === selection.id;
    this.selection = isToggle && isSame ? null : selection;
    this.card.hidden = true;
    this.draw();
  }

  /** @param {import("./graph.js").Selection | null} selection @param {DOMRect | null} at */
  hover(selection, at) {
    const edge = selection?.kind === "edge" && this.picture.edges.find((/** @type {any} */ one) => edgeId(one) === selection.id);
    if (!edge || at === null) {
      this.card.hidden = true;
      return;
    }
    replace(this.card, el("strong", {}, `${short(edge.src)} → ${short(edge.dst)}`), ...describeEdge(edge).split(": ").slice(1).join(": ").split(", ").map((text) => el("span", {}, text)));
    this.card.hidden = false;
    const x = Math.min(Math.max(at.left + at.width / 2, 140), innerWidth - 140);
    this.card.style.setProperty("left", `${x}px`);
    this.card.style.setProperty("top", `${Math.max(at.top + at.height / 2 - 14, 120)}px`);
  }
}

/** @param {any} picture @returns {Map<string, any[]>} */
export function byApp(picture) {
  const found = new Map();
  for (const one of picture.sidecars) found.set(one.name, [...(found.get(one.name) ?? []), one]);
  return found;
}

/**
 * What is wrong, each fault once with all who have it, the worst first.
 * @param {any} picture @param {Map<string, any[]>} sidecars
 */
function problems(picture, sidecars) {
  /** @typedef {import("./graph.js").Selection} Selection */
  /** @type {Map<string, {key: string, level: string, who: string[], says: (who: string, isOne: boolean) => string, selection: Selection}>} */
  const found = new Map();
  const tell = (/** @type {Selection} */ selection, /** @type {string} */ who, /** @type {string} */ level, /** @type {string} */ key, /** @type {(who: string, isOne: boolean) => string} */ says) => {
    const known = found.get(key);
    if (known === undefined) found.set(key, { key, level, who: [who], says, selection });
    else if (!known.who.includes(who)) known.who.push(who);
  };
  for (const one of picture.sidecars) {
    /** @type {Selection} */
    const selection = { kind: "node", id: one.name };
    const who = short(one.name) + ((sidecars.get(one.name) ?? []).length > 1 ? ` (process ${one.pid})` : "");
    if (one.state === "silent" && isLasting(one, picture.at)) tell(selection, who, "bad", `${one.instance} silent`, (name) => `${name} ${silence(one, picture.at)}`);
    if (one.state === "not ready" && !one.notes?.length) tell(selection, who, "warn", "not ready", (name, isOne) => `${name} ${isOne ? "is" : "are"} not ready`);
    const left = one.identity?.secondsLeft;
    if (typeof left === "number" && left <= 0) tell(selection, who, "bad", "svid ended", (name, isOne) => `${name} ${isOne ? "has a certificate that has" : "have certificates that have"} ended`);
    else if (typeof left === "number" && left < SOON_S) tell(selection, who, "warn", `${one.instance} svid`, (name) => `${name} has a certificate that ends in ${span(left)}`);
    for (const note of one.notes ?? []) {
      const text = note.replace(/^[^:]*: /, ""); // it names its app itself
      tell(selection, who, "warn", `note ${text}`, (name) => `${name}: ${text}`);
    }
  }
  for (const edge of picture.edges) {
    /** @type {Selection} */
    const selection = { kind: "edge", id: edgeId(edge) };
    const who = `${short(edge.src)} → ${short(edge.dst)}`;
    if (edge.state === "bad" || edge.state === "warn") tell(selection, who, edge.state, `${edgeId(edge)} state`, (name) => `${name}: ${percent(1 - edge.success)} of calls fail`);
    if (edge.secured === false && edge.total) tell(selection, who, "warn", `lock ${edge.reason}`, (name, isOne) => `${name} ${isOne ? "is" : "are"} not secured: ${edge.reason}`);
  }
  const order = ["bad", "warn"];
  return [...found.values()]
    .map(({ who, says, ...one }) => ({ ...one, text: says(joined(who), who.length === 1) }))
    .sort((one, other) => order.indexOf(one.level) - order.indexOf(other.level));
}

/** @param {string[]} names */
function joined(names) {
  const rest = names.length - NAMED;
  return rest > 0 ? `${names.slice(0, NAMED).join(", ")} and ${rest} more` : names.join(", ");
}

function legend() {
  const rows = [
    ["ok", "succeeds"],
    ["warn", "under 99 %"],
    ["bad", "under 95 %"],
    ["idle", "idle for a minute"],
    ["unknown", "not known now"],
  ];
  return el(
    "ul",
    { class: "legend", "aria-label": "Lines" },
    rows.map(([state, text]) => el("li", { "data-state": state }, el("span", { class: "stroke", "aria-hidden": "true" }), text)),
    el("li", {}, "wider: more calls"),
    el("li", {}, "labels: rate · success · p95"),
  );
}

function nothingRuns() {
  return el(
    "section",
    { class: "empty" },
    el("h1", {}, "No sidecar runs here yet"),
    el("p", {}, "Start an app with one, and it appears on this page within a second:"),
    el("pre", {}, "postern run --app-id cart --app-port 8080 -- python app.py"),
    el("p", {}, "Or see the shop with nine of them:"),
    el("pre", {}, "make demo"),
    el("p", { class: "hint" }, "The dashboard looks into one runtime root. Sidecars of another are shown by a dashboard with the same POSTERN_HOME or --runtime-path."),
  );
}

