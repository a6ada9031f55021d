/** The job that is followed: its state, the cold start, the pictures as they grow, and what came of it. */

import { announce, button, element, seconds } from "./dom.js";
import { ColdStart } from "./cold_start.js";
import { actions, ending, notes, parameters, pictures } from "./job.js";

const TICK = 250; // milliseconds between two looks at the clock

export class Stage {
  constructor(context) {
    this.context = context;
    this.frame = document.getElementById("frame");
    this.empty = document.getElementById("empty");
    this.run = document.getElementById("run");
    this.state = document.getElementById("state");
    this.eta = document.getElementById("eta");
    this.progress = document.getElementById("progress");
    this.result = document.getElementById("result");
    this.cold = new ColdStart(document.getElementById("cold"));
    this.ticking = null;
  }

  /** A job has begun. */
  begin(job) {
    this.job = job;
    this.due = null;
    this.pace = null;
    this.cold.forget();
    this.progress.hidden = true;
    this.result.hidden = true;
    this.run.hidden = false;
    this.run.classList.remove("over");
    this.frame.className = "frame working";
    this.frame.replaceChildren(...Array.from({ length: job.request.num_images }, () => canvas(job.request)));
    this.shape(job.request.num_images);
    this.say("Waiting for its turn");
    if (typeof job.eta === "number") this.expect(job.eta);
    clearInterval(this.ticking);
    this.ticking = setInterval(() => this.tick(), TICK);
    // On a phone all this is below the form.
    this.run.scrollIntoView({ block: "nearest" });
  }

  queued({ eta }) {
    this.say("Waiting for its turn");
    if (typeof eta === "number") this.expect(eta);
  }

  waking(report) {
    this.say("Waking the GPU");
    this.cold.tell(report);
    this.expect(this.cold.left(), "awake in about");
  }

  step({ step, steps, previews }) {
    this.cold.wake();
    this.say(`Step ${step} of ${steps}`, Math.floor((4 * step) / steps) !== Math.floor((4 * (step - 1)) / steps));
    this.progress.hidden = false;
    this.progress.max = steps;
    this.progress.value = step;
    const now = performance.now();
    this.pace ??= { step, now };
    const done = step - this.pace.step;
    if (done > 0) this.expect(((now - this.pace.now) / done / 1000) * (steps - step));
    else this.due = null;
    this.tick();
    previews?.forEach((preview, number) => this.preview(preview, number));
  }

  lost(lost) {
    this.state.classList.toggle("lost", lost);
    if (lost) this.say("Connection lost; the job goes on. Trying again");
    else this.say("Connected again");
  }

  /** It has ended, one way or the other. */
  end(job) {
    clearInterval(this.ticking);
    if (job.state === "done") this.cold.wake();
    this.state.classList.remove("lost");
    this.frame.className = "frame";
    this.progress.hidden = true;
    this.eta.textContent = "";
    this.run.classList.add("over");
    if (job.state !== "done") {
      this.clear();
      this.say(ending(job));
      return;
    }
    const renewed = async (number) => (await this.context.api.job(job.id)).images[number].url;
    const shown = pictures(job, renewed);
    this.frame.replaceChildren(...shown.map(({ image }) => element("figure", {}, image)));
    this.shape(shown.length);
    this.say([`Done in ${seconds(job.finished - job.created)}`, ...notes(job)].join(" · "));
    const lines = shown.map(({ download, seed }, number) => element("li", {},
      element("span", { textContent: shown.length > 1 ? `Picture ${number + 1} · seed ${seed}` : `Seed ${seed}` }),
      download,
      button("Keep this seed", () => this.context.form.keepSeed(seed))));
    this.result.replaceChildren(
      element("ul", { className: "seeds" }, ...lines), actions(job, this.context), parameters(job));
    this.result.hidden = false;
  }

  /** Nothing is followed any more, and why is said elsewhere. */
  abandon() {
    clearInterval(this.ticking);
    this.run.hidden = true;
    this.clear();
  }

  clear() {
    this.frame.className = "frame";
    this.frame.replaceChildren(this.empty);
    this.shape(1);
  }

  shape(count) {
    this.frame.classList.toggle("several", count > 1);
  }

  say(text, aloud = text !== this.said) {
    this.said = text;
    this.state.textContent = text;
    if (aloud) announce(text);
  }

  expect(left, words = "done in about") {
    this.words = words;
    this.due = performance.now() + left * 1000;
    this.tick();
  }

  tick() {
    if (!this.cold.awake) this.cold.draw();
    if (this.due === null) {
      this.eta.textContent = "";
      return;
    }
    const left = Math.ceil((this.due - performance.now()) / 1000);
    this.eta.textContent = left > 1 ? `${this.words} ${left} s` : "any moment now";
  }

  async preview(base64, number) {
    const target = this.frame.children[number]?.querySelector("canvas");
    if (!target) return;
    const picture = new Image();
    picture.src = `data:image/png;base64,${base64}`;
    try {
      await picture.decode();
    } catch {
      return; // the next one will come
    }
    target.width = picture.naturalWidth;
    target.height = picture.naturalHeight;
    target.getContext("2d").drawImage(picture, 0, 0);
    target.classList.add("drawn");
  }
}

function canvas({ width, height, prompt }) {
  const made = element("canvas", { width: 1, height: 1, ariaLabel: `Preview: ${prompt}` });
  made.setAttribute("role", "img");
  made.style.aspectRatio = `${width} / ${height}`;
  return element("figure", {}, made);
}
