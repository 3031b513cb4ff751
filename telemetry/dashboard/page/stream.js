/**
 * The one stream of events. Read by fetch, as an EventSource can't send a token. It comes back by itself, and is closed while nobody looks.
 */

import { RefusedError, get } from "./session.js";

const STALL_MS = 6000; // without a picture, which come every second or two: what is shown is old
const RETRY_MS = 1500;

/**
 * @typedef {object} Handlers
 * @property {(name: string, told: any) => void} event
 * @property {() => void} open
 * @property {(why: string) => void} lost
 * @property {() => void} refused
 */

export class Stream {
  /** @param {Handlers} handlers */
  constructor(handlers) {
    this.handlers = handlers;
    this.query = "";
    /** @type {AbortController | null} */
    this.running = null;
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) this.close();
      else this.start();
    });
  }

  /** Ask for this, too. @param {Record<string, string>} query */
  want(query) {
    const text = new URLSearchParams(query).toString();
    if (text === this.query && this.running !== null) return;
    this.query = text;
    this.close();
    this.start();
  }

  close() {
    this.running?.abort();
    this.running = null;
  }

  start() {
    if (this.running !== null || document.hidden) return;
    const control = new AbortController();
    this.running = control;
    void this.keep(control);
  }

  /** @param {AbortController} control */
  async keep(control) {
    while (!control.signal.aborted) {
      try {
        await this.read(control);
      } catch (error) {
        if (control.signal.aborted) return;
        if (error instanceof RefusedError) {
          this.running = null;
          this.handlers.refused();
          return;
        }
        this.handlers.lost(error instanceof Error && error.name === "Told" ? error.message : "");
      }
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
  }

  /** @param {AbortController} control */
  async read(control) {
    const once = new AbortController();
    const end = () => once.abort();
    control.signal.addEventListener("abort", end);
    let timer = setTimeout(end, STALL_MS);
    try {
      const answer = await get("/api/events", Object.fromEntries(new URLSearchParams(this.query)), once.signal);
      if (!answer.ok || answer.body === null) {
        const why = new Error(String((await answer.json()).error ?? answer.status));
        why.name = "Told";
        throw why;
      }
      this.handlers.open();
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) throw new Error("it ended");
        const parts = (rest + value).split("\n\n");
        rest = /** @type {string} */ (parts.pop());
        if (parts.some((part) => part.startsWith("event: mesh"))) {
          clearTimeout(timer);
          timer = setTimeout(end, STALL_MS);
        }
        for (const part of parts) this.dispatch(part);
      }
    } finally {
      clearTimeout(timer);
      control.signal.removeEventListener("abort", end);
    }
  }

  /** @param {string} part one event */
  dispatch(part) {
    const fields = { event: "", data: "" };
    for (const line of part.split("\n")) {
      const at = line.indexOf(": ");
      if (at > 0) fields[/** @type {"event" | "data"} */ (line.slice(0, at))] = line.slice(at + 2);
    }
    if (fields.event) this.handlers.event(fields.event, JSON.parse(fields.data));
  }
}
