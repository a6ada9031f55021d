/** The cold start as it happens: phases on a bar, and in words. */

import { element, seconds } from "./dom.js";

// What the edge and the cluster see; every other phase is one that the engine says it has finished.
const STATES = [
  "unreachable", "waiting_for_capacity", "scheduling", "preparing", "initializing", "pulling_image", "starting",
  "image_error", "container_error", "crashing",
];

const NAMES = {
  unreachable: "Waiting for a machine",
  waiting_for_capacity: "Waiting for a free GPU",
  scheduling: "Finding a machine",
  preparing: "Setting up the pod",
  initializing: "Fetching the model",
  pulling_image: "Pulling the image",
  image_error: "The image cannot be pulled",
  container_error: "The container does not start",
  crashing: "It crashes and is started again",
  starting: "Starting",
  interpreter: "Python",
  torch: "Libraries",
  libtorch: "Libraries",
  cuda_context: "GPU context",
  bundle_opened: "Bundle opened",
  files_checked: "Files checked",
  tokenizers: "Tokenizer",
  weights_read: "Weights read",
  modules_built: "Model built",
  weights_on_device: "Weights to the GPU",
  warm: "Warm-up",
  step_warm: "Warm-up: step",
  decode_warm: "Warm-up: decoder",
  text_warm: "Warm-up: text encoder",
  preview_warm: "Warm-up: preview",
  ready: "Getting ready",
  now: "Under way",
};

/** A phase in words. */
export function phaseName(phase) {
  return NAMES[phase] ?? phase.replaceAll("_", " ");
}

/**
 * Reports of { phase, seconds since it was woken } → [{ phase, seconds, open }] up to `now`.
 *
 * A report names a state that lasts (nobody is there, it starts) or the work that has just ended. The time before
 * such work was reported is therefore that work's; what goes on after it has no name until it ends.
 */
export function segments(reports, now) {
  const changes = reports.filter((report, i) => i === 0 || report.phase !== reports[i - 1].phase);
  const found = [];
  if (changes.length && !STATES.includes(changes[0].phase) && changes[0].seconds > 0) {
    found.push({ phase: changes[0].phase, seconds: changes[0].seconds, open: false });
  }
  changes.forEach(({ phase, seconds: since }, i) => {
    const next = changes[i + 1];
    const begun = i === 0 && STATES.includes(phase) ? 0 : since;
    found.push({
      phase: next ? ended(phase, next.phase) : STATES.includes(phase) ? phase : "now",
      seconds: Math.max(0, (next?.seconds ?? now) - begun),
      open: !next,
    });
  });
  return found.filter((segment) => segment.open || segment.seconds > 0);
}

/** The name of the time between two reports. */
function ended(before, after) {
  if (STATES.includes(after) || before === "unreachable") return before;
  return before === "starting" && after === "ready" ? before : after;
}

export class ColdStart {
  constructor(root) {
    this.root = root;
    this.total = root.querySelector("#cold-total");
    this.bar = root.querySelector("#cold-bar");
    this.list = root.querySelector("#cold-phases");
    this.forget();
  }

  forget() {
    this.reports = [];
    this.awake = false;
    this.root.hidden = true;
  }

  /** One `waking` event: seconds since it was woken, and until it is awake. */
  tell({ phase, seconds: since, eta }) {
    this.awake = false;
    this.reports.push({ phase, seconds: since });
    this.at = performance.now();
    this.until = since + eta;
    this.root.hidden = false;
    this.draw();
  }

  /** It has taken the request. */
  wake() {
    if (!this.reports.length || this.awake) return;
    this.reports.push({ phase: "ready", seconds: this.now() });
    this.awake = true;
    this.draw();
  }

  /** Seconds since it was woken. */
  now() {
    const last = this.reports.at(-1);
    return this.awake ? last.seconds : last.seconds + (performance.now() - this.at) / 1000;
  }

  /** Seconds until it is awake, by what earlier starts took. */
  left() {
    return Math.max(0, this.until - this.now());
  }

  draw() {
    if (!this.reports.length) return;
    const found = segments(this.reports, this.now()).filter((segment) => !(this.awake && segment.open));
    this.total.textContent = seconds(this.now());
    // Parts stay the same elements: widths grow smoothly, and a screen reader may be in the middle of the list.
    fit(this.list, found.length, line);
    fit(this.bar, found.length + 1, () => element("span"));
    found.forEach((segment, i) => {
      const className = `phase-${i % 8}${segment.open ? " open" : ""}`;
      this.bar.children[i].className = className;
      this.bar.children[i].style.flexGrow = Math.max(segment.seconds, 0.001);
      this.list.children[i].className = className;
      this.list.children[i].querySelector("b").textContent = phaseName(segment.phase);
      this.list.children[i].querySelector("span").textContent = seconds(segment.seconds);
    });
    this.bar.lastChild.className = "rest";
    this.bar.lastChild.style.flexGrow = this.awake ? 0 : this.left();
  }
}

/** As many children as there are parts. */
function fit(parent, count, make) {
  while (parent.children.length < count) parent.append(make());
  while (parent.children.length > count) parent.lastChild.remove();
}

function line() {
  return element("li", {}, element("i", { ariaHidden: "true" }), element("b"), " ", element("span"));
}
