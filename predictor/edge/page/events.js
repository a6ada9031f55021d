/**
 * Server-sent events over fetch: an EventSource cannot send an Authorization header.
 * The format: https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
 */

import { ApiError, Unreachable, pause } from "./api.js";

const ENDS = ["done", "failed", "cancelled"];
const SILENCE = 15000; // milliseconds; the edge says something every second
const LONGEST_PAUSE = 8000;

/** Text in pieces → events of { id, name, data }. */
export class EventParser {
  constructor() {
    this.rest = "";
    this.id = null;
    this.clear();
  }

  push(text) {
    // A carriage return at the very end may be half of a line's end.
    const lines = (this.rest + text).split(/\r\n|\n|\r(?!$)/);
    this.rest = lines.pop();
    return lines.map((line) => this.line(line)).filter(Boolean);
  }

  line(line) {
    if (line === "") return this.dispatch();
    const [, field, value] = /^([^:]*):? ?(.*)$/s.exec(line);
    if (field === "data") this.data.push(value);
    else if (field === "event") this.name = value;
    else if (field === "id" && !value.includes("\0")) this.id = value;
    return null;
  }

  dispatch() {
    const event = this.data.length ? { id: this.id, name: this.name, data: JSON.parse(this.data.join("\n")) } : null;
    this.clear();
    return event;
  }

  clear() {
    this.name = "message";
    this.data = [];
  }
}

/**
 * A job's events until its end, however often the connection breaks.
 * `lost(true)` is called when it has broken, `lost(false)` when it stands again.
 */
export async function* follow(api, id, lost) {
  let last = null;
  for (let failures = 0; ; ) {
    try {
      for await (const event of connection(api, id, last)) {
        if (failures) lost(false);
        failures = 0;
        if (event === null) continue;
        last = event.id ?? last;
        yield event;
        if (ENDS.includes(event.name)) return;
      }
    } catch (error) {
      if (error instanceof ApiError && error.status < 500 && error.status !== 429) throw error;
      if (!(error instanceof ApiError || error instanceof Unreachable)) throw error;
    }
    lost(true);
    await pause(Math.min(250 * 2 ** failures++, LONGEST_PAUSE));
  }
}

/** The events of one connection; null when it is there, and whenever something came that is no event. */
async function* connection(api, id, last) {
  const broken = new AbortController();
  const silent = () => broken.abort();
  let timer = setTimeout(silent, SILENCE);
  try {
    const response = await api.events(id, last, broken.signal);
    if (response.status === 204) {
      const job = await api.job(id);
      yield { id: last, name: job.state, data: job };
      return;
    }
    yield null;
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    const parser = new EventParser();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      clearTimeout(timer);
      timer = setTimeout(silent, SILENCE);
      yield* parser.push(value);
    }
  } catch (error) {
    if (error instanceof ApiError) throw error;
    if (error instanceof SyntaxError) throw error;
    throw new Unreachable(error.message);
  } finally {
    clearTimeout(timer);
    broken.abort();
  }
}
