/** One sidecar: where it sends calls, its certificate, the policies with their decisions, and its settings with their source. */

import { el, reconcile, replace, say } from "./dom.js";
import { clock, clockMs, plural, short, silence, span } from "./format.js";
import { facts } from "./selected.js";
import { ask } from "./session.js";
import { levelOf } from "./sidecars-view.js";

const REFRESH_MS = 2000;
const MOST_DECISIONS = 12;

export class SidecarView {
  /** @param {string} instance */
  constructor(instance) {
    this.instance = instance;
    this.title = "Sidecar";
    this.name = el("h1", {}, "Sidecar");
    this.state = el("p", { class: "state" });
    this.notes = el("ul", { class: "attention" });
    this.parts = el("div", { class: "panels" });
    this.gone = el("p", { class: "empty", hidden: true });
    this.decisions = el("tbody", {});
    /** @type {any[]} */
    this.events = [];
    this.showsDefaults = false;
    this.root = el("article", { class: "sidecar" }, el("p", { class: "crumb" }, el("a", { href: "#/sidecars" }, "Sidecars")), this.name, this.state, this.notes, this.gone, this.parts);
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.timer = undefined;
    this.isOver = false;
    /** @type {any} */
    this.row = null;
    void this.refresh();
  }

  query() {
    return { tap: "1", instance: this.instance, "max-rps": "5" };
  }

  end() {
    this.isOver = true;
    clearTimeout(this.timer);
  }

  async refresh() {
    try {
      this.show(await ask("/api/sidecar", { instance: this.instance }));
    } catch (error) {
      if (!this.isOver) this.close(error instanceof Error ? error.message : "It is not known now.");
    }
    if (!this.isOver) this.timer = setTimeout(() => void this.refresh(), REFRESH_MS);
  }

  /** @param {string} why */
  close(why) {
    this.gone.hidden = false;
    say(this.gone, why);
    this.parts.hidden = true;
    this.notes.hidden = true;
  }

  /** @param {any} picture */
  mesh(picture) {
    this.row = picture.sidecars.find((/** @type {any} */ one) => one.instance === this.instance) ?? null;
    if (this.row === null) return;
    say(this.name, short(this.row.name));
    this.state.dataset.state = levelOf(this.row);
    say(this.state, this.row.state === "silent" ? `It ${silence(this.row, picture.at)}` : this.row.state);
    if (this.row.state === "silent") this.close("Nothing is known of it now. It is asked again each second, and this page fills as soon as it answers.");
  }

  /** @param {any} told */
  show(told) {
    if (this.isOver) return;
    say(this.name, told.namespace === "default" ? told.app : `${told.app}.${told.namespace}`);
    if (!told.answers) {
      this.state.dataset.state = "bad";
      this.close("Nothing is known of it now. It is asked again each second, and this page fills as soon as it answers.");
      return;
    }
    this.gone.hidden = true;
    this.parts.hidden = this.notes.hidden = false;
    reconcile(
      this.notes,
      told.notes,
      (note) => note,
      (note) => el("li", { "data-level": "warn" }, note),
      () => {},
    );
    const panels = [
      { key: "identity", title: "Certificate", fill: () => certificate(told.status) },
      { key: "app", title: "App and ports", fill: () => ports(told) },
      { key: "engine", title: "Engine and exporters", fill: () => engine(told.status) },
      { key: "endpoints", title: "Endpoints it knows", wide: true, fill: () => endpoints(told.endpoints) },
      { key: "policies", title: "Policies in force", wide: true, fill: () => policies(told) },
      { key: "breakers", title: "Circuit breakers", wide: true, fill: () => breakers(told.status.circuitBreakers ?? []) },
      { key: "decisions", title: "Last decisions", wide: true, fill: null },
      { key: "services", title: "gRPC services it can route", wide: true, fill: () => services(told.status.services ?? []) },
      { key: "settings", title: "Configuration", wide: true, fill: () => this.settings(told) },
    ];
    reconcile(
      this.parts,
      panels,
      (panel) => panel.key,
      (panel) => el("section", { class: panel.wide ? "panel wide" : "panel", "aria-label": panel.title }, el("h2", {}, panel.title), panel.fill === null ? this.decisionTable() : el("div", {})),
      (section, panel) => {
        if (panel.fill === null) return;
        const content = JSON.stringify([told.status, told[panel.key], told.settings, told.configuration, this.showsDefaults]);
        if (section.content === content) return; // what is focused or selected stays, unless there is news
        section.content = content;
        const hadFocus = section.contains(document.activeElement);
        replace(section.lastElementChild, panel.fill());
        if (hadFocus) section.querySelector("button")?.focus();
      },
    );
  }

  decisionTable() {
    this.noDecision = el("p", { class: "hint" }, "Calls appear here as they end, from now on.");
    return el(
      "div",
      {},
      this.noDecision,
      el(
        "table",
        { class: "list" },
        el("caption", { class: "unseen" }, "What was decided about the last calls"),
        el("thead", {}, el("tr", {}, ["When", "Call", "Decision", "Because"].map((title) => el("th", { scope: "col" }, title)))),
        this.decisions,
      ),
    );
  }

  /** @param {any} told */
  calls(told) {
    const news = told.events.filter((/** @type {any} */ event) => event.event === "call");
    if (!news.length) return;
    this.events = [...news.reverse(), ...this.events].slice(0, MOST_DECISIONS);
    if (this.noDecision) this.noDecision.hidden = true;
    reconcile(
      this.decisions,
      this.events,
      (event) => `${event.time} ${event.trace_id} ${event.direction} ${event.path}`,
      (event) =>
        el(
          "tr",
          { "data-state": event.cause ? "bad" : "ok" },
          el("th", { scope: "row", class: "mono" }, clockMs(Date.parse(zoned(event.time)) * 1000)),
          el("td", { "data-title": "Call" }, `${event.direction === "inbound" ? "in" : "out"} ${event.src || "?"} → ${event.dst || "?"} `, el("span", { class: "path" }, event.path || "(path hidden)")),
          el("td", { "data-title": "Decision" }, event.cause ? `${event.cause}, by ${event.made_by === "this-proxy" ? "this sidecar" : "the callee's"}` : "passed"),
          el("td", { "data-title": "Because" }, [event.decision, ...(event.policies ?? [])].filter(Boolean).join(", ") || "–"),
        ),
      () => {},
    );
  }

  /** @param {any} told */
  settings(told) {
    const rows = told.settings.filter((/** @type {any} */ row) => this.showsDefaults || row.source !== "default");
    const hidden = told.settings.length - rows.length;
    return el(
      "div",
      {},
      settingsTable("Settings", rows),
      el(
        "p",
        {},
        el(
          "button",
          {
            type: "button",
            click: () => {
              this.showsDefaults = !this.showsDefaults;
              void ask("/api/sidecar", { instance: this.instance }).then((fresh) => this.show(fresh), () => {});
            },
          },
          this.showsDefaults ? "Hide defaults" : `Show ${plural(hidden, "default")}`,
        ),
      ),
      told.configuration.length ? settingsTable("Fields of its Configuration", told.configuration) : null,
    );
  }
}

/** Times of the access log are UTC. @param {string} time */
export function zoned(time) {
  return /Z|[+-]\d\d:\d\d$/.test(time) ? time : `${time}Z`;
}

/** @param {any} status */
function certificate(status) {
  const { identity } = status;
  const list = el("dl", { class: "facts-list tall" });
  const left = identity.secondsLeft;
  const rows = [["State", identity.mtls ? identity.state : "mutual TLS is off"]];
  if (identity.spiffeId) rows.push(["SPIFFE ID", identity.spiffeId]);
  if (typeof left === "number") rows.push(["Time left", left > 0 ? span(left) : "it has ended"]);
  if (identity.notAfter) rows.push(["Ends at", clock(Date.parse(identity.notAfter) / 1000)]);
  if (identity.sentry) rows.push(["Authority", identity.sentry]);
  if (identity.lastError) rows.push(["Last fault", identity.lastError]);
  facts(list, rows);
  return list;
}

/** @param {any} told */
function ports(told) {
  const { status } = told;
  const list = el("dl", { class: "facts-list tall" });
  const named = Object.entries(status.ports ?? {}).filter(([, port]) => port);
  const rows = [
    ["App", status.app.port ? `${status.app.protocol} on port ${status.app.port}, ${status.app.state}` : "none"],
    ["Listening process", status.app.heldBy ?? "–"],
    ["Announced", status.app.announced ? "yes" : "no"],
    ["Ports", named.map(([name, port]) => `${name} ${port}`).join(", ")],
    ["Process", `${status.pid}, up for ${span(Date.now() / 1000 - status.startedAt)}`],
  ];
  if (told.run.appCommand) rows.push(["Command", told.run.appCommand]);
  if (told.run.runTemplatePath) rows.push(["Run file", told.run.runTemplatePath]);
  facts(list, rows);
  return list;
}

/** @param {any[]} listed */
function endpoints(listed) {
  if (!listed.length) return el("p", { class: "hint" }, "No app was looked up yet. The first call to one does that.");
  return table(
    "",
    ["App", "Address", "Found by", "Health", "In flight", "Latency"],
    listed.map((one) => {
      const load = one.load ?? {};
      const isOut = load.ejectedForS > 0;
      const why = load.outlier ? " for its answers" : "";
      const health = isOut ? `ejected for ${span(load.ejectedForS)}${why}` : load.proven ? "identity proven" : "not called yet";
      return {
        state: isOut ? "bad" : one.state === "stale" ? "warn" : "ok",
        cells: [short(one.app), one.address, one.source, one.state === "stale" ? `${health}, known from before` : health, load.inFlight ?? "–", load.proven ? `${load.rttMs} ms` : "–"],
      };
    }),
  );
}

/** @param {any} told */
function policies(told) {
  const { policy } = told.status;
  const decided = told.policies;
  const box = el("div", {});
  const list = el("dl", { class: "facts-list tall" });
  facts(list, [
    ["Configuration", policy.files.length ? policy.files.join(", ") : "none (defaults apply)"],
    ["Generation", policy.generation],
    ["Resiliency", told.resiliencies.length ? told.resiliencies.map((/** @type {any} */ one) => one.name).join(", ") : "none (defaults apply)"],
    ...(policy.lastError ? [["Refused", policy.lastError]] : []),
  ]);
  box.append(list);
  if (decided === null) {
    box.append(el("p", { class: "hint" }, "This sidecar is of an older version and does not report its decisions. Restart it."));
    return box;
  }
  box.append(
    decided.access.length
      ? table("Access decisions since its start", ["Caller", "Rule", "Decision", "Calls"], decided.access.map((/** @type {any} */ row) => ({ state: row.decision === "denied" ? "bad" : "ok", cells: [short(row.src), row.policy, row.decision, row.calls] })))
      : el("p", { class: "hint" }, "No access decision yet: nobody has called its app."),
  );
  if (decided.resiliency.length) {
    box.append(
      table("Resiliency since its start", ["Policy", "Kind", "Target", "State", "Calls", "Changed"], decided.resiliency.map((/** @type {any} */ row) => ({ state: "ok", cells: [row.name, row.policy, row.target, row.status || "–", row.calls, row.activations] }))),
    );
  }
  if (decided.retries.length) {
    box.append(table("Attempts after the first", ["Callee", "Because", "Attempts"], decided.retries.map((/** @type {any} */ row) => ({ state: "warn", cells: [short(row.dst), row.reason, row.attempts] }))));
  }
  return box;
}

/** @param {any} status */
function engine(status) {
  const { engineStats: stats } = status;
  const list = el("dl", { class: "facts-list tall" });
  facts(list, [
    ["Engine", `${status.engine}, ${plural(stats.threads, "thread")}`],
    ["Calls in flight", stats.callsInFlight],
    ["Connections", `${stats.connections} from callers, ${stats.upstreamConnections} onward`],
    ["Decisions kept", stats.plansKept],
    ["Version", status.version],
    ...status.exporters.map((/** @type {any} */ one) => {
      const dropped = Object.values(one.dropped).reduce((/** @type {any} */ sum, count) => sum + count, 0);
      const what = { "otlp-app-metrics": "Data points", "otlp-app-logs": "Log records", "otlp-logs": "Log records" }[one.name] || "Spans";
      return [`${what} to ${one.name}`, `${one.exported} sent, ${one.queued} wait, ${dropped} lost${one.collector ? ` (${one.collector})` : ""}`];
    }),
  ]);
  return list;
}

/** @param {any[]} listed */
function breakers(listed) {
  if (!listed.length) return el("p", { class: "hint" }, "None yet: no Resiliency sets one for the callees so far.");
  const level = { closed: "ok", "half-open": "warn", open: "bad" };
  return table(
    "",
    ["Callee", "Method", "Policy", "State", "Calls", "Failures in a row"],
    listed.map((one) => ({
      state: level[/** @type {"closed" | "half-open" | "open"} */ (one.state)],
      cells: [short(one.target), one.method, one.policy, one.state === "open" ? `open, half-open in ${span(one.probesInS)}` : one.state, one.counters.requests, one.counters.consecutiveFailures],
    })),
  );
}

/** @param {any[]} listed */
function services(listed) {
  if (!listed.length) return el("p", { class: "hint" }, "None: no gRPC service is known by its name.");
  return table("", ["Service", "App", "How"], listed.map((one) => ({ state: one.inForce ? "ok" : "warn", cells: [one.service, one.app, one.inForce ? one.how : `${one.how}, not in force`] })));
}

/** @param {string} caption @param {any[]} rows */
function settingsTable(caption, rows) {
  return table(
    caption,
    ["Setting", "Value", "From"],
    rows.map((row) => ({ state: "ok", cells: [row.name, valueOf(row.value), row.source === "default" ? "default" : ["run file", "config"].includes(row.source) ? row.by : `${row.source} ${row.by}`] })),
  );
}

/** @param {any} value */
function valueOf(value) {
  if (value === null || value === "") return "–";
  if (typeof value === "boolean") return value ? "yes" : "no";
  return Array.isArray(value) ? value.join(", ") || "–" : typeof value === "object" ? JSON.stringify(value) : String(value);
}

/** @param {string} caption @param {string[]} titles @param {{state: string, cells: any[]}[]} rows */
function table(caption, titles, rows) {
  return el(
    "table",
    { class: "list" },
    caption ? el("caption", {}, caption) : null,
    el("thead", {}, el("tr", {}, titles.map((title) => el("th", { scope: "col" }, title)))),
    el("tbody", {}, rows.map((row) => el("tr", { "data-state": row.state }, row.cells.map((cell, number) => (number === 0 ? el("th", { scope: "row" }, cell) : el("td", { "data-title": titles[number] }, cell)))))),
  );
}
