/** Beside the graph: what is known of the app or the edge that was selected. */

import { el, reconcile, replace, say, set, svg } from "./dom.js";
import { STATES, ms, percent, rate, short, silence, span } from "./format.js";
import { LOCK, OPEN, edgeId, stateOf } from "./graph.js";
import { ask } from "./session.js";

const ROUTES_MS = 2000;

export class Selected {
  /** @param {(selection: import("./graph.js").Selection | null) => void} select */
  constructor(select) {
    this.select = select;
    this.body = el("div", {});
    this.root = el(
      "aside",
      { class: "selected", "aria-label": "Selected", hidden: true },
      el("button", { type: "button", class: "close quiet", "aria-label": "Close", click: () => this.select(null) }, "✕"),
      this.body,
    );
    this.shown = "";
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.timer = undefined;
    this.routes = el("div", { class: "routes" });
  }

  end() {
    clearTimeout(this.timer);
    this.shown = "";
  }

  /** @param {any} picture @param {import("./graph.js").Selection | null} selection @param {Map<string, any[]>} sidecars */
  update(picture, selection, sidecars) {
    this.root.hidden = selection === null;
    const key = selection === null ? "" : `${selection.kind} ${selection.id}`;
    if (key !== this.shown) {
      this.end();
      this.shown = key;
      replace(this.body);
      replace(this.routes);
      if (selection?.kind === "edge") void this.askRoutes(selection.id, key);
    }
    if (selection === null) return;
    if (selection.kind === "node") this.node(picture, selection.id, sidecars.get(selection.id) ?? []);
    else this.edge(picture.edges.find((/** @type {any} */ edge) => edgeId(edge) === selection.id));
  }

  /** @param {any} picture @param {string} name @param {any[]} sidecars */
  node(picture, name, sidecars) {
    const node = picture.nodes.find((/** @type {any} */ one) => one.id === name);
    const state = stateOf(node, sidecars);
    const toIt = picture.edges.filter((/** @type {any} */ edge) => edge.dst === name && edge.src !== name);
    const isSilent = state.name === "silent";
    const byIt = picture.edges.filter((/** @type {any} */ edge) => edge.src === name);
    this.sections([
      ["head", () => head(short(name), state.name), (box) => say(box.lastElementChild, isSilent && node.calls ? `${state.text}: these numbers are its callers'` : state.text)],
      ["numbers", () => el("dl", { class: "facts-list" }), (box) => facts(box, numbers(node))],
      ["sidecars", () => section("Sidecars", el("ul", { class: "plain" })), (box) => sidecarLinks(box, sidecars, picture.at)],
      ["to", () => section("Called by", el("ul", { class: "plain" })), (box) => this.edgeLinks(box, toIt, "src", isSilent ? "Not known: its sidecar does not answer." : "Nobody has called it yet.")],
      ["by", () => section("Calls", el("ul", { class: "plain" })), (box) => this.edgeLinks(box, byIt, "dst", isSilent ? "Not known: its sidecar does not answer." : "It has called nobody yet.")],
    ]);
  }

  /** @param {any} edge */
  edge(edge) {
    if (edge === undefined) return;
    this.sections([
      ["head", () => head(`${short(edge.src)} → ${short(edge.dst)}`, edge.state), (box) => say(box.lastElementChild, STATES[/** @type {keyof typeof STATES} */ (edge.state)])],
      ["numbers", () => el("dl", { class: "facts-list" }), (box) => facts(box, numbers(edge))],
      ["lock", () => section("Identity", el("p", { class: "lock-line" }, svg("svg", { viewBox: "0 0 10 12", width: 14, height: 17, "aria-hidden": "true" }, svg("path", {})), el("span", {})), el("dl", { class: "ids" })), (box) => identity(box, edge)],
      ["routes", () => section("Routes", this.routes), () => {}],
    ]);
  }

  /** @param {[string, () => HTMLElement, (box: any) => void][]} parts */
  sections(parts) {
    reconcile(
      this.body,
      parts,
      ([key]) => key,
      ([, create]) => create(),
      (box, [, , update]) => update(box),
    );
  }

  /** @param {HTMLElement} box @param {any[]} edges @param {"src" | "dst"} end @param {string} none */
  edgeLinks(box, edges, end, none) {
    const list = /** @type {Element} */ (box.lastElementChild);
    reconcile(
      list,
      edges.length ? edges : [null],
      (edge) => (edge === null ? none : edgeId(edge)),
      (edge) =>
        edge === null
          ? el("li", { class: "hint" }, none)
          : el("li", {}, el("button", { type: "button", class: "link", click: () => this.select({ kind: "edge", id: edgeId(edge) }) }, short(edge[end])), el("span", { class: "mono" })),
      (row, edge) => {
        if (edge === null) return;
        row.dataset.state = edge.state;
        say(row.lastElementChild, edge.state === "unknown" ? "not known" : edge.calls ? `${rate(edge.rps)} · ${percent(edge.success)} · ${ms(edge.p95Ms)}` : "idle");
      },
    );
  }

  /** @param {string} id @param {string} key */
  async askRoutes(id, key) {
    const [src, dst] = id.split("\n");
    try {
      const told = await ask("/api/edge", { src, dst });
      if (this.shown !== key) return;
      replace(this.routes, told.routes.length ? routesTable(told.routes) : el("p", { class: "hint" }, "No calls seen on this edge."));
    } catch (error) {
      if (this.shown !== key) return;
      replace(this.routes, el("p", { class: "hint" }, error instanceof Error ? error.message : "The routes are not known."));
    }
    this.timer = setTimeout(() => void this.askRoutes(id, key), ROUTES_MS);
  }
}

/** @param {string} title @param {string} state */
function head(title, state) {
  return el("header", {}, el("h2", {}, title), el("p", { class: "state", "data-state": state }));
}

/** @param {string} title @param {...HTMLElement} content */
function section(title, ...content) {
  return el("section", {}, el("h3", {}, title), ...content);
}

/** @param {any} from */
function numbers(from) {
  return [
    ["Rate", from.calls ? rate(from.rps) : "–"],
    ["Success rate", percent(from.success)],
    ["p50", ms(from.p50Ms)],
    ["p95", ms(from.p95Ms)],
    ["p99", ms(from.p99Ms)],
    ["In a minute", from.calls ?? "–"],
  ];
}

/** @param {Element} box @param {any[][]} rows */
export function facts(box, rows) {
  reconcile(
    box,
    rows,
    (row) => row[0],
    (row) => el("div", {}, el("dt", {}, row[0]), el("dd", {})),
    (element, row) => say(element.lastElementChild, row[1]),
  );
}

/** @param {any} box @param {any[]} sidecars @param {number} now */
function sidecarLinks(box, sidecars, now) {
  reconcile(
    box.lastElementChild,
    sidecars.length ? sidecars : [null],
    (one) => (one === null ? "" : one.instance),
    (one) =>
      one === null
        ? el("li", { class: "hint" }, "None runs on this host for you.")
        : el("li", {}, el("a", { href: `#/sidecars/${encodeURIComponent(one.instance)}` }, `process ${one.pid}`), el("span", {})),
    (row, one) => {
      if (one === null) return;
      row.dataset.state = one.state === "silent" ? "bad" : one.state === "ready" ? "ok" : "warn";
      say(row.lastElementChild, one.state === "silent" ? silence(one, now) : `${one.state}, certificate ${typeof one.identity?.secondsLeft === "number" ? `ends in ${span(one.identity.secondsLeft)}` : (one.identity?.state ?? "not known")}`);
    },
  );
}

/** @param {any} box @param {any} edge */
function identity(box, edge) {
  const text = edge.secured === null ? (edge.reason ? `Nothing to secure: ${edge.reason}.` : "Not known now.") : edge.secured ? "Mutual TLS: each end proved who it is." : `Not secured: ${edge.reason}.`;
  const line = box.children[1];
  line.dataset.secured = String(edge.secured);
  set(line.querySelector("path"), { d: edge.secured ? LOCK : OPEN });
  say(line.lastElementChild, text);
  facts(box.children[2], [
    ["Caller", edge.srcId || "not proven"],
    ["Callee", edge.dstId || "not proven"],
  ]);
}

/** @param {any[]} routes */
function routesTable(routes) {
  return el(
    "table",
    { class: "list tight" },
    el("caption", { class: "unseen" }, "Routes of this edge"),
    el("thead", {}, el("tr", {}, ["Route", "Rate", "Success rate", "p95"].map((title) => el("th", { scope: "col" }, title)))),
    el(
      "tbody",
      {},
      routes.map((route) =>
        el(
          "tr",
          { "data-state": route.state },
          el("th", { scope: "row", class: "path" }, route.protocol === "grpc" ? route.path || route.method : `${route.method} ${route.path}`.trim(), el("small", {}, Object.entries(route.codes).map(([code, count]) => `${code} ×${count}`).join(", "))),
          el("td", { "data-title": "Rate" }, route.calls ? rate(route.rps) : "idle"),
          el("td", { "data-title": "Success rate" }, percent(route.success)),
          el("td", { "data-title": "p95" }, ms(route.p95Ms)),
        ),
      ),
    ),
  );
}
