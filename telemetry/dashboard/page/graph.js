/**
 * Draws the mesh as SVG. Where nodes stand comes with the picture (layers and rows), so numbers that change move nothing.
 */

import { reconcile, say, set, svg } from "./dom.js";
import { STATES, ms, percent, rate, short } from "./format.js";

const NODE = { width: 160, height: 50 };
const GAP = 164; // room for a label between two columns
const ROW = 74;
const PAD = 24;
const MAX_LABELS = 24; // edges; with more, only what fails is labelled until it is looked at
export const LOCK = "M2.5 4.5V3a2.5 2.5 0 0 1 5 0v1.5M1 4.5h8v6H1z";
export const OPEN = "M2.5 4.5V3a2.5 2.5 0 0 1 4.8-.9M1 4.5h8v6H1z";
const NAME_CHARS = 17;
const EMPTY = 30; // the width of a label without its text

/** @typedef {{kind: "node" | "edge", id: string}} Selection */

/** @param {any} edge */
export const edgeId = (edge) => `${edge.src}\n${edge.dst}`;

export class Graph {
  /**
   * @param {(selection: Selection | null) => void} select
   * @param {(selection: Selection | null, at: DOMRect | null) => void} hover
   */
  constructor(select, hover) {
    this.select = select;
    this.hover = hover;
    this.edges = svg("g", { class: "edges" });
    this.labels = svg("g", { class: "labels", "aria-hidden": "true" });
    this.nodes = svg("g", { class: "nodes" });
    this.root = svg(
      "svg",
      { class: "graph", role: "group", "aria-label": "Mesh: who calls whom. Arrow keys move between apps, Enter selects. The table has the same." },
      this.edges,
      this.labels,
      this.nodes,
    );
    /** @type {Map<string, {x: number, y: number}>} */
    this.places = new Map();
    this.focused = "";
    this.root.addEventListener("keydown", (event) => this.key(/** @type {KeyboardEvent} */ (event)));
    this.root.addEventListener("click", (event) => {
      if (event.target === this.root) this.select(null);
    });
  }

  /**
   * @param {any} picture
   * @param {Selection | null} selected
   * @param {Set<string>} near names of nodes that are shown in full; empty: all
   * @param {Map<string, any[]>} sidecars by app
   */
  update(picture, selected, near, sidecars) {
    const layout = picture.layout;
    const width = Math.max(layout.columns, 1) * (NODE.width + GAP) - GAP + 2 * PAD;
    const height = Math.max(layout.rows, 1) * ROW - (ROW - NODE.height) + 2 * PAD;
    set(this.root, { viewBox: `0 0 ${width} ${height}`, width, height });
    this.root.style.setProperty("--natural-width", `${width}px`);
    this.places = new Map(
      Object.entries(layout.nodes).map(([name, [column, row]]) => [name, { x: PAD + column * (NODE.width + GAP), y: PAD + row * ROW }]),
    );
    if (!this.places.has(this.focused)) this.focused = picture.nodes[0]?.id ?? "";
    const routes = this.route(picture);
    const hasLabels = picture.edges.length <= MAX_LABELS;
    reconcile(
      this.edges,
      picture.edges,
      edgeId,
      (edge) => this.createEdge(edge),
      (element, edge) => this.updateEdge(element, edge, routes.get(edgeId(edge)), selected, near),
    );
    reconcile(
      this.labels,
      picture.edges.filter((/** @type {any} */ edge) => hasLabels || edge.state === "bad" || edge.state === "warn" || isLit(edge, selected)),
      edgeId,
      createLabel,
      (element, edge) => updateLabel(element, edge, routes.get(edgeId(edge)), isDim(edge, selected, near)),
    );
    reconcile(
      this.nodes,
      picture.nodes,
      (node) => node.id,
      (node) => this.createNode(node),
      (element, node) => this.updateNode(element, node, selected, near, sidecars.get(node.id) ?? []),
    );
  }

  /** The path of each edge: ends spread over a node's side by where the others stand. @param {any} picture */
  route(picture) {
    const bends = new Map(picture.layout.bends.map((/** @type {any} */ [src, dst, points]) => [`${src}\n${dst}`, points]));
    /** @type {Map<string, {edge: any, end: string, towards: number}[]>} */
    const sides = new Map();
    const drawn = [];
    for (const edge of picture.edges) {
      const from = this.places.get(edge.src);
      const to = this.places.get(edge.dst);
      if (from === undefined || to === undefined) continue;
      const isBack = to.x < from.x;
      const points = (bends.get(edgeId(edge)) ?? []).map((/** @type {number[]} */ [column, row]) => ({
        x: PAD + column * (NODE.width + GAP),
        y: PAD + row * ROW + NODE.height / 2,
      }));
      drawn.push({ edge, from, to, isBack, points });
      if (edge.src === edge.dst) continue;
      const first = points[0]?.y ?? to.y + NODE.height / 2;
      const last = points.at(-1)?.y ?? from.y + NODE.height / 2;
      push(sides, `${edge.src}\n${isBack ? "left" : "right"}`, { edge, end: "src", towards: first });
      push(sides, `${edge.dst}\n${isBack ? "right" : "left"}`, { edge, end: "dst", towards: last });
    }
    /** @type {Map<string, number>} */
    const ports = new Map();
    for (const ends of sides.values()) {
      ends.sort((one, other) => one.towards - other.towards || (edgeId(one.edge) < edgeId(other.edge) ? -1 : 1));
      const step = Math.min(9, (NODE.height - 14) / Math.max(ends.length - 1, 1));
      ends.forEach((one, number) => ports.set(`${edgeId(one.edge)}\n${one.end}`, (number - (ends.length - 1) / 2) * step));
    }
    return new Map(drawn.map((one) => [edgeId(one.edge), shape(one, ports)]));
  }

  /** @param {any} edge */
  createEdge(edge) {
    const id = edgeId(edge);
    const group = svg(
      "g",
      { class: "edge", tabindex: -1, role: "button" },
      svg("path", { class: "reach" }),
      svg("path", { class: "line" }),
      svg("path", { class: "arrow" }),
    );
    this.listen(group, { kind: "edge", id });
    return group;
  }

  /** @param {SVGElement} group @param {Selection} selection */
  listen(group, selection) {
    group.addEventListener("click", () => this.select(selection));
    group.addEventListener("pointerenter", () => this.hover(selection, group.getBoundingClientRect()));
    group.addEventListener("pointerleave", () => this.hover(null, null));
    group.addEventListener("focus", () => this.hover(selection, group.getBoundingClientRect()));
    group.addEventListener("blur", () => this.hover(null, null));
  }

  /** @param {any} group @param {any} edge @param {any} route @param {Selection | null} selected @param {Set<string>} near */
  updateEdge(group, edge, route, selected, near) {
    if (route === undefined) return;
    const [reach, line, arrow] = group.children;
    const width = edge.rps ? Math.min(1.4 + Math.log2(1 + edge.rps) * 0.65, 6) : 1.25;
    set(group, {
      "data-state": edge.state,
      "data-dim": isDim(edge, selected, near),
      "data-lit": isLit(edge, selected),
      "data-open": edge.secured === false && edge.state !== "unknown",
      "aria-label": describeEdge(edge),
      "aria-pressed": selected?.kind === "edge" && selected.id === edgeId(edge) ? "true" : "false",
    });
    set(reach, { d: route.path });
    set(line, { d: route.path, "stroke-width": width.toFixed(2) });
    const size = 5 + width * 0.9;
    const dx = route.isBack ? size : -size;
    set(arrow, { d: `M${route.end.x} ${route.end.y}l${dx} ${-size / 1.7}v${(2 * size) / 1.7}z` });
  }

  /** @param {any} node */
  createNode(node) {
    const group = svg(
      "g",
      { class: "node", role: "button" },
      svg("rect", { class: "box", width: NODE.width, height: NODE.height, rx: 8 }),
      svg("rect", { class: "edgebar", x: 0, y: 9, width: 4, height: NODE.height - 18, rx: 2 }),
      svg("text", { class: "name", x: 16, y: 21 }),
      svg("text", { class: "facts", x: 16, y: 38 }),
      svg("text", { class: "mark", x: NODE.width - 12, y: 21, "text-anchor": "end" }),
    );
    this.listen(group, { kind: "node", id: node.id });
    group.addEventListener("focus", () => {
      this.focused = node.id;
    });
    return group;
  }

  /** @param {any} group @param {any} node @param {Selection | null} selected @param {Set<string>} near @param {any[]} sidecars */
  updateNode(group, node, selected, near, sidecars) {
    const at = this.places.get(node.id);
    if (at === undefined) return;
    const state = stateOf(node, sidecars);
    set(group, {
      transform: `translate(${at.x} ${at.y})`,
      tabindex: node.id === this.focused ? 0 : -1,
      "data-state": state.name,
      "data-here": node.isHere,
      "data-dim": near.size > 0 && !near.has(node.id),
      "aria-pressed": selected?.kind === "node" && selected.id === node.id ? "true" : "false",
      "aria-label": `${short(node.id)}: ${state.text}. ${node.calls ? `${rate(node.rps)}, ${percent(node.success)} succeed, p95 ${ms(node.p95Ms)}` : "no call to it in the last minute"}`,
    });
    const [, , name, facts, mark] = group.children;
    const label = short(node.id);
    say(name, (label.length > NAME_CHARS ? `${label.slice(0, NAME_CHARS - 1)}…` : label) + (sidecars.length > 1 ? ` ×${sidecars.length}` : ""));
    say(facts, state.facts ?? (node.calls ? `${rate(node.rps)} · p95 ${ms(node.p95Ms)}` : "no inbound calls"));
    say(mark, state.mark);
  }

  /** Arrow keys: to the nearest node in that direction. @param {KeyboardEvent} event */
  key(event) {
    const group = /** @type {any} */ (event.target);
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      group.dispatchEvent(new MouseEvent("click", { bubbles: false }));
      return;
    }
    const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const way = ways[/** @type {keyof typeof ways} */ (event.key)];
    const here = this.places.get(this.focused);
    if (way === undefined || here === undefined) return;
    event.preventDefault();
    let best = "";
    let least = Infinity;
    for (const [name, at] of this.places) {
      const along = (at.x - here.x) * way[0] + (at.y - here.y) * way[1];
      const aside = Math.abs((at.x - here.x) * way[1]) + Math.abs((at.y - here.y) * way[0]);
      if (along > 1 && along + 3 * aside < least) [best, least] = [name, along + 3 * aside];
    }
    if (best) this.focus(best);
  }

  /** @param {string} name */
  focus(name) {
    for (const child of this.nodes.children) {
      const isIt = /** @type {any} */ (child).posternKey === name;
      child.setAttribute("tabindex", isIt ? "0" : "-1");
      if (isIt) /** @type {SVGElement} */ (child).focus();
    }
  }
}

/** @param {Map<string, any[]>} map @param {string} key @param {any} value */
function push(map, key, value) {
  const list = map.get(key);
  if (list === undefined) map.set(key, [value]);
  else list.push(value);
}

/** @param {any} drawn @param {Map<string, number>} ports */
function shape({ edge, from, to, isBack, points }, ports) {
  const middle = NODE.height / 2;
  if (edge.src === edge.dst) {
    const x = from.x + NODE.width - 30;
    const path = `M${x} ${from.y}c-6 -22 30 -22 24 -2`;
    return { path, end: { x: x + 24, y: from.y - 1 }, isBack: false, label: { x: x + 12, y: from.y - 16 } };
  }
  const side = isBack ? -1 : 1;
  const start = { x: from.x + (isBack ? 0 : NODE.width), y: from.y + middle + (ports.get(`${edgeId(edge)}\nsrc`) ?? 0) };
  const end = { x: to.x + (isBack ? NODE.width + 2 : -2), y: to.y + middle + (ports.get(`${edgeId(edge)}\ndst`) ?? 0) };
  const stem = { x: end.x - side * 8, y: end.y };
  let path = `M${start.x} ${start.y}`;
  let last = start;
  for (const bend of points) {
    const near = { x: bend.x + (isBack ? NODE.width : 0), y: bend.y };
    path += curve(last, near);
    last = { x: bend.x + (isBack ? 0 : NODE.width), y: bend.y };
    path += `L${last.x} ${last.y}`;
  }
  path += curve(last, stem) + `L${end.x - side * 4} ${end.y}`;
  const bend = points[Math.floor((points.length - 1) / 2)];
  const label = bend === undefined ? { x: (start.x + stem.x) / 2, y: (start.y + stem.y) / 2 } : { x: bend.x + NODE.width / 2, y: bend.y };
  return { path, end, isBack, label };
}

/** @param {{x: number, y: number}} one @param {{x: number, y: number}} other */
function curve(one, other) {
  const half = (other.x - one.x) / 2;
  return `C${one.x + half} ${one.y} ${other.x - half} ${other.y} ${other.x} ${other.y}`;
}

/** @param {any} edge @param {Selection | null} selected */
function isLit(edge, selected) {
  if (selected === null) return false;
  return selected.kind === "edge" ? selected.id === edgeId(edge) : edge.src === selected.id || edge.dst === selected.id;
}

/** @param {any} edge @param {Selection | null} selected @param {Set<string>} near */
function isDim(edge, selected, near) {
  if (selected !== null) return !isLit(edge, selected);
  return near.size > 0 && !(near.has(edge.src) && near.has(edge.dst));
}

function createLabel() {
  return svg("g", { class: "label" }, svg("rect", { rx: 8, height: 18, y: -9 }), svg("path", { class: "lock" }), svg("text", { y: 4 }));
}

/** @param {any} group @param {any} edge @param {any} route @param {boolean} dim */
function updateLabel(group, edge, route, dim) {
  if (route === undefined) return;
  const text = labelOf(edge);
  const [box, lock, words] = group.children;
  const looks = `${edge.state} ${text}`;
  set(group, { transform: `translate(${route.label.x} ${route.label.y})`, "data-state": edge.state, "data-dim": dim, "data-open": edge.secured === false });
  if (group.looks !== looks || group.width <= EMPTY) {
    group.looks = looks;
    words.textContent = text;
    group.width = words.getComputedTextLength() + EMPTY; // asked for only when it may have changed; 0 while nothing is drawn
  }
  const { width } = group;
  set(box, { x: -width / 2, width });
  set(lock, { d: edge.secured ? LOCK : OPEN, transform: `translate(${-width / 2 + 7} -6)`, visibility: edge.secured === null ? "hidden" : "visible" });
  set(words, { x: -width / 2 + 21 });
}

/** @param {any} edge */
function labelOf(edge) {
  if (edge.state === "unknown") return "unknown";
  if (!edge.calls) return "idle";
  return [rate(edge.rps), percent(edge.success), ms(edge.p95Ms)].join(" · ");
}

/** @param {any} edge */
export function describeEdge(edge) {
  const who = `${short(edge.src)} calls ${short(edge.dst)}`;
  if (edge.state === "unknown") return `${who}: not known now, as a sidecar does not answer`;
  const lock = edge.secured ? "mutual TLS" : edge.secured === null ? edge.reason : `not secured: ${edge.reason}`;
  if (!edge.calls) return `${who}: no call in the last minute, ${lock}`;
  return `${who}: ${rate(edge.rps)}, ${percent(edge.success)} succeed, p95 ${ms(edge.p95Ms)}, ${lock}`;
}

/**
 * What a node is shown as: how its sidecars are goes before how its calls are.
 * @param {any} node
 * @param {any[]} sidecars
 * @returns {{name: string, text: string, mark: string, facts?: string}}
 */
export function stateOf(node, sidecars) {
  if (!node.isHere) return { name: "away", text: "no sidecar of it runs here", mark: "" };
  const silent = sidecars.filter((one) => one.state === "silent").length;
  if (silent && silent === sidecars.length) return { name: "silent", text: "its sidecar does not answer", mark: "?", facts: "does not answer" };
  if (silent) return { name: "silent", text: `${silent} of ${sidecars.length} sidecars do not answer`, mark: "?", facts: `${silent} of ${sidecars.length} do not answer` };
  if (sidecars.some((one) => one.state === "draining")) return { name: "notready", text: "it is shutting down", mark: "↓", facts: "shutting down" };
  if (sidecars.some((one) => one.state === "not ready")) return { name: "notready", text: "not ready", mark: "!", facts: "not ready" };
  const marks = { bad: "✕", warn: "!" };
  return { name: node.state, text: STATES[/** @type {keyof typeof STATES} */ (node.state)], mark: marks[/** @type {"bad" | "warn"} */ (node.state)] ?? "" };
}
