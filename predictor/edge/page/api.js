/** The edge's HTTP API, as far as this page uses it. */

const TRIES = 3; // of a request whose answer was lost on the way; the edge knows it again by its key

/** A refusal: `param` names the field where one is to blame, `retryAfter` is in seconds. */
export class ApiError extends Error {
  constructor(status, { message, code, param }, retryAfter) {
    super(message);
    Object.assign(this, { status, code, param, retryAfter });
  }
}

/** The edge could not be reached. */
export class Unreachable extends Error {}

export class Api {
  /** `key` is a function, for the user may change it. */
  constructor(key) {
    this.key = key;
  }

  /** The model's id and what it can do; null where the edge does not know that yet. */
  async model() {
    const [{ id }] = (await this.json("v1/models")).data;
    const { x_capabilities: capabilities } = await this.json(`v1/models/${encodeURIComponent(id)}`);
    return { id, capabilities: capabilities ?? null };
  }

  /** A new job; sent again, as the same one, if the connection breaks. */
  create(body) {
    return this.once("v1/jobs", body);
  }

  replay(id) {
    return this.once(`${path(id)}/replay`);
  }

  job(id) {
    return this.json(path(id));
  }

  cancel(id) {
    return this.json(path(id), { method: "DELETE" });
  }

  /** Newest first; `after` is the last answer's. */
  jobs(limit, after) {
    const query = new URLSearchParams({ limit, ...(after && { after }) });
    return this.json(`v1/jobs?${query}`);
  }

  /** The open stream of a job's events from `last` on. */
  events(id, last, signal) {
    const headers = { Accept: "text/event-stream", ...(last && { "Last-Event-ID": last }) };
    return this.answer(`${path(id)}/events?previews=true`, { headers, signal });
  }

  async once(where, body) {
    const headers = { "Idempotency-Key": randomKey() };
    if (body) headers["Content-Type"] = "application/json";
    for (let tried = 1; ; tried++) {
      try {
        return await this.json(where, { method: "POST", headers, body: body && JSON.stringify(body) });
      } catch (error) {
        if (!(error instanceof Unreachable) || tried === TRIES) throw error;
        await pause(500 * tried);
      }
    }
  }

  async json(where, options) {
    return (await this.answer(where, options)).json();
  }

  async answer(where, options = {}) {
    const key = this.key();
    const headers = { ...options.headers, ...(key && { Authorization: `Bearer ${key}` }) };
    let response;
    try {
      response = await fetch(new URL(where, document.baseURI), { ...options, headers, cache: "no-store" });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Unreachable("The server cannot be reached.");
    }
    if (response.ok) return response;
    const body = await response.json().catch(() => null);
    const problem = body?.error ?? { message: `The server answered ${response.status}.` };
    const retryAfter = Number(response.headers.get("Retry-After"));
    throw new ApiError(response.status, problem, retryAfter > 0 ? retryAfter : null);
  }
}

export function pause(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

function path(id) {
  return `v1/jobs/${encodeURIComponent(id)}`;
}

/** crypto.randomUUID exists on https and localhost only. */
function randomKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
