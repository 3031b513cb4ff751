/** Starts the page: the token, the stream, and the view that the address names. */

import { CallsView } from "./calls-view.js";
import { el, replace, say } from "./dom.js";
import { clock, isLasting, plural, short } from "./format.js";
import { LogsView } from "./logs-view.js";
import { MeshView } from "./mesh-view.js";
import { begin } from "./session.js";
import { SidecarView } from "./sidecar-view.js";
import { SidecarsView } from "./sidecars-view.js";
import { Stream } from "./stream.js";
import { TraceView } from "./trace-view.js";
import { TracesView } from "./traces-view.js";

/**
 * @typedef {object} View
 * @property {HTMLElement} root
 * @property {string} title
 * @property {() => Record<string, string>} query what the stream is to carry for it
 * @property {(picture: any) => void} [mesh]
 * @property {(told: any) => void} [calls]
 * @property {(told: any) => void} [logs]
 * @property {() => void} [end]
 */

const main = /** @type {HTMLElement} */ (document.getElementById("main"));
const live = /** @type {HTMLElement} */ (document.getElementById("live"));
const liveText = /** @type {HTMLElement} */ (document.getElementById("live-text"));
const outage = /** @type {HTMLElement} */ (document.getElementById("outage"));
const announcer = /** @type {HTMLElement} */ (document.getElementById("announcer"));

/** @type {View | null} */
let view = null;
/** @type {any} */
let picture = null;
/** @type {Map<string, string>} */
const states = new Map();

const stream = new Stream({
  event: (name, told) => {
    if (name === "mesh") {
      picture = told;
      announce(told);
      showLive();
    }
    const take = view?.[/** @type {"mesh" | "calls" | "logs"} */ (name)];
    if (view !== null && take !== undefined) take.call(view, told);
  },
  open: () => showLive(),
  lost: showOutage,
  refused: () => showClosed(),
});

function showLive() {
  outage.hidden = true;
  delete document.body.dataset.stale;
  if (picture === null) return;
  const silent = picture.sidecars.filter((/** @type {any} */ one) => one.state === "silent").length;
  live.dataset.state = silent ? "partly" : "live";
  const all = picture.sidecars.length;
  say(liveText, silent ? `${all - silent} of ${all} sidecars answer` : all ? `Live, ${plural(all, "sidecar")}` : "Live, no sidecar");
}

/** @param {string} why */
function showOutage(why) {
  live.dataset.state = "lost";
  say(liveText, "No answer");
  document.body.dataset.stale = "";
  const since = picture === null ? "" : ` What you see is from ${clock(picture.at)}.`;
  const told = why || "postern dashboard does not answer: it has ended, or is stopped.";
  if (outage.hidden || outage.dataset.why !== told) {
    outage.dataset.why = told;
    replace(outage, el("strong", {}, told), ` ${since} This page tries again by itself.`);
    outage.hidden = false;
  }
}

function showClosed() {
  stream.close();
  live.dataset.state = "lost";
  say(liveText, "Not open");
  view?.end?.();
  view = null;
  document.title = "postern";
  replace(
    main,
    el(
      "section",
      { class: "empty" },
      el("h1", {}, "This page needs its link"),
      el("p", {}, "The dashboard is open to whoever has the link that the command printed. Its token belongs to one run, and is kept in one tab."),
      el("p", {}, "Open the link again, or start a new dashboard:"),
      el("pre", {}, "postern dashboard"),
    ),
  );
}

/** Tell a screen reader of sidecars that fall silent or come back, and of nothing that merely changes. @param {any} told */
function announce(told) {
  const lasting = (/** @type {any} */ one) => one.state !== "silent" || isLasting(one, told.at);
  const now = new Map(told.sidecars.filter(lasting).map((/** @type {any} */ one) => [one.instance, one]));
  const news = [];
  for (const [instance, one] of now) {
    const before = states.get(instance);
    if (before !== undefined && before !== one.state) {
      if (one.state === "silent") news.push(`${short(one.name)} does not answer`);
      else if (before === "silent") news.push(`${short(one.name)} answers again`);
    }
  }
  for (const one of told.sidecars) states.set(one.instance, now.has(one.instance) ? one.state : (states.get(one.instance) ?? one.state));
  for (const instance of states.keys()) if (!told.sidecars.some((/** @type {any} */ one) => one.instance === instance)) states.delete(instance);
  if (news.length) announcer.textContent = news.slice(0, 5).join(". ");
}

/** @returns {View} */
function viewOf() {
  const [name, argument] = location.hash.replace(/^#\/?/, "").split("/").map(decode);
  switch (name) {
    case "sidecars":
      return argument ? new SidecarView(argument) : new SidecarsView();
    case "traces":
      return argument ? new TraceView(argument) : new TracesView();
    case "calls":
      return new CallsView(() => view !== null && stream.want(view.query()));
    case "logs":
      return new LogsView(argument ?? "");
    default:
      return new MeshView(argument ?? "");
  }
}

/** @param {string} text */
function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function route() {
  view?.end?.();
  view = viewOf();
  document.title = `${view.title} · postern`;
  const [name] = location.hash.replace(/^#\/?/, "").split("/");
  for (const link of document.querySelectorAll("header nav a")) {
    const isHere = link.getAttribute("href") === `#/${name || "mesh"}`;
    if (isHere) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  main.replaceChildren(view.root);
  if (picture !== null) view.mesh?.(picture);
  stream.want(view.query());
}

document.querySelector(".skip")?.addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});

if (begin()) {
  globalThis.addEventListener("hashchange", () => {
    if (location.hash.startsWith("#token=")) {
      location.reload();
      return;
    }
    route();
    main.focus({ preventScroll: true });
    scrollTo(0, 0);
  });
  route();
} else {
  showClosed();
  globalThis.addEventListener("hashchange", () => location.reload());
}
