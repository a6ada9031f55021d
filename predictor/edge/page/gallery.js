/** One's jobs, newest first, and the details of each. */

import { button, element } from "./dom.js";
import { actions, ending, parameters, pictures, timings } from "./job.js";

const PAGE = 12;
const STATES = { active: "Under way", failed: "Failed", cancelled: "Cancelled" };

export class Gallery {
  /** `context` is what the buttons of a job need: { api, capabilities, form, replay }. */
  constructor(context) {
    this.context = context;
    this.list = document.getElementById("gallery");
    this.empty = document.getElementById("gallery-empty");
    this.more = document.getElementById("more");
    this.dialog = document.getElementById("details");
    this.after = null;
    this.more.addEventListener("click", () => this.next());
    this.dialog.addEventListener("click", (event) => {
      if (event.target === this.dialog) this.dialog.close();
    });
  }

  /** From the newest on. */
  async load() {
    const page = await this.context.api.jobs(PAGE, null);
    this.list.replaceChildren();
    this.add(page);
  }

  async next() {
    const before = this.list.children.length;
    try {
      this.add(await this.context.api.jobs(PAGE, this.after));
    } catch (error) {
      this.context.complain(error);
      return;
    }
    // The button may be gone, and focus with it.
    this.list.children[before]?.querySelector("button").focus();
  }

  /** A job that is new, or has changed. */
  put(job) {
    const shown = [...this.list.children].find(({ dataset }) => dataset.job === job.id);
    if (shown) shown.replaceWith(this.item(job));
    else this.list.prepend(this.item(job));
    this.empty.hidden = true;
  }

  add({ data, has_more: more, after }) {
    const known = new Set([...this.list.children].map(({ dataset }) => dataset.job));
    this.list.append(...data.filter(({ id }) => !known.has(id)).map((job) => this.item(job)));
    this.after = after ?? data.at(-1)?.id;
    this.more.hidden = !more;
    this.empty.hidden = this.list.children.length > 0;
  }

  item(job) {
    const open = element("button", { type: "button", className: "thumb", onclick: () => this.open(job.id) });
    const [first] = job.images;
    if (first) {
      const count = job.images.length;
      const alt = count > 1 ? `${job.request.prompt} (${count} pictures)` : job.request.prompt;
      open.append(element("img", { src: first.url, alt, loading: "lazy", decoding: "async" }));
      if (count > 1) open.append(element("span", { className: "count", ariaHidden: "true", textContent: count }));
    } else {
      open.append(
        element("span", { className: `badge ${job.state}`, textContent: STATES[job.state] ?? job.state }),
        element("span", { className: "words", textContent: job.request.prompt }),
      );
    }
    open.title = job.request.prompt;
    const item = element("li", {}, open);
    item.dataset.job = job.id;
    return item;
  }

  /** The details, with links as fresh as they can be. */
  async open(id) {
    let job;
    try {
      job = await this.context.api.job(id);
    } catch (error) {
      this.context.complain(error);
      return;
    }
    const close = () => this.dialog.close();
    const renewed = async (number) => (await this.context.api.job(id)).images[number].url;
    const figures = pictures(job, renewed).map(({ image, download }) =>
      element("figure", {}, image, element("figcaption", {}, download)));
    const closer = button("Close", close, "quiet close");
    document.getElementById("details-body").replaceChildren(
      element("header", {}, element("h2", { id: "details-title", textContent: job.request.prompt }), closer),
      element("div", { className: "figures" }, ...figures),
      element("div", { className: "facts" },
        job.state === "done" ? null : element("p", { className: "notice", textContent: wording(job) }),
        actions(job, this.context, close),
        element("section", {}, element("h3", { textContent: "Parameters" }), parameters(job)),
        element("section", {}, element("h3", { textContent: "Timings" }), timings(job))),
    );
    this.dialog.className = figures.length ? "drawn" : "";
    this.dialog.showModal();
    this.dialog.scrollTop = 0;
    closer.focus({ preventScroll: true });
  }
}

function wording(job) {
  return job.state === "active" ? "Under way." : ending(job);
}
