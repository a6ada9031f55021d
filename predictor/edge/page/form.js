/** The request: what the model allows → choices, fields → a body, and what the edge objects to → at its field. */

import { element } from "./dom.js";

const OTHER = "other";
const RATIOS = [[1, 1], [4, 3], [3, 4], [3, 2], [2, 3], [16, 9], [9, 16]];
const NUMBERS = ["n", "num_inference_steps", "guidance_scale", "seed"];
// The edge may name a field as OpenAI's clients do, or as it is called inside.
const FIELDS = {
  num_images: "n",
  steps: "num_inference_steps",
  scheduler: "sampler",
  height: "size",
  width: "size",
  "height and width": "size",
};

/** A field that cannot be sent as it is. */
export class Objection extends Error {
  constructor(param, message) {
    super(message);
    this.param = param;
  }
}

/** The [width, height] that a model is offered at: those it was compiled for, else common shapes of its usual area. */
export function sizes(allowed) {
  const usual = [allowed.default_width, allowed.default_height];
  if (allowed.sizes?.length) return allowed.sizes.map(([height, width]) => [width, height]);
  const area = usual[0] * usual[1];
  const multiple = allowed.size_multiple;
  const near = (side) => Math.round(side / multiple) * multiple;
  const found = RATIOS.map(([w, h]) => [near(Math.sqrt(area * w / h)), near(Math.sqrt(area * h / w))]);
  const fits = ([w, h]) => Math.min(w, h) >= allowed.min_side && w * h <= allowed.max_pixels;
  const distinct = new Map([usual, ...found.filter(fits)].map((size) => [size.join("x"), size]));
  return [...distinct.values()];
}

export class RequestForm {
  constructor(form, submitted) {
    this.form = form;
    this.size = form.querySelector("#size");
    this.sides = form.querySelector("#sides");
    this.generate = form.querySelector("#generate");
    this.model = null;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (!this.generate.disabled) submitted();
    });
    form.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
    });
    form.addEventListener("input", (event) => this.clear(nameOf(event.target)));
    this.size.addEventListener("change", () => { this.sides.hidden = this.size.value !== OTHER; });
    for (const area of form.querySelectorAll("textarea")) {
      area.addEventListener("input", () => grow(area));
    }
  }

  set busy(busy) {
    this.generate.disabled = busy;
  }

  /** Show what the model can do; without capabilities everything is left to it. */
  adopt({ id, capabilities }) {
    this.model = id;
    if (!capabilities) return;
    const takes = (name) => capabilities.parameters?.includes(name) ?? true;
    for (const name of ["negative_prompt", "guidance_scale", "sampler"]) {
      this.form.querySelector(`#${name}`).closest(".field").hidden = !takes(name);
    }
    const usual = `${capabilities.default_width}x${capabilities.default_height}`;
    const shapes = sizes(capabilities).map(([width, height]) => option(`${width}x${height}`, `${width} × ${height}`));
    if (!capabilities.sizes?.length) shapes.push(option(OTHER, "other…"));
    refill(this.size, shapes, usual);
    this.size.dispatchEvent(new Event("change"));
    for (const side of this.sides.querySelectorAll("input")) {
      Object.assign(side, { min: capabilities.min_side, step: capabilities.size_multiple });
    }
    const samplers = capabilities.samplers.map((name) => option(name, name.replaceAll("_", " ")));
    refill(this.field("sampler"), samplers, capabilities.default_sampler ?? capabilities.samplers[0]);
    Object.assign(this.field("num_inference_steps"), {
      max: capabilities.max_steps,
      placeholder: capabilities.default_steps,
    });
    Object.assign(this.field("guidance_scale"), {
      max: capabilities.max_guidance_scale,
      placeholder: capabilities.default_guidance_scale,
    });
    this.field("n").max = capabilities.max_images;
  }

  /** The body of POST /v1/jobs; a field that is empty or hidden is left to the model. */
  body() {
    const body = { model: this.model, prompt: this.field("prompt").value };
    if (this.field("negative_prompt").value && this.shown("negative_prompt")) {
      body.negative_prompt = this.field("negative_prompt").value;
    }
    const size = this.size.value === OTHER ? this.otherSize() : this.size.value;
    if (size) body.size = size;
    for (const name of NUMBERS) {
      const field = this.field(name);
      if (field.validity.badInput) throw new Objection(name, "That is not a number.");
      if (field.value !== "" && this.shown(name)) body[name] = Number(field.value);
    }
    if (this.field("sampler").value && this.shown("sampler")) body.sampler = this.field("sampler").value;
    return body;
  }

  /** Take a job's request over. */
  use(request) {
    const size = `${request.width}x${request.height}`;
    const listed = [...this.size.options].some(({ value }) => value === size);
    if (listed) {
      this.size.value = size;
    } else if ([...this.size.options].some(({ value }) => value === OTHER)) {
      this.size.value = OTHER;
      this.form.querySelector("#width").value = request.width;
      this.form.querySelector("#height").value = request.height;
    }
    this.size.dispatchEvent(new Event("change"));
    this.field("prompt").value = request.prompt;
    this.field("negative_prompt").value = request.negative_prompt;
    this.field("n").value = request.num_images;
    this.field("num_inference_steps").value = request.steps;
    this.field("guidance_scale").value = request.guidance_scale;
    this.field("sampler").value = request.sampler;
    this.field("seed").value = request.seed;
    this.form.querySelectorAll("textarea").forEach(grow);
    this.clear();
    this.field("prompt").focus();
  }

  keepSeed(seed) {
    this.field("seed").value = seed;
    this.clear("seed");
    this.field("seed").focus();
  }

  /** Show an objection at its field; false if no field here is to blame. */
  object({ param, message }) {
    const name = FIELDS[param] ?? param;
    const place = name && document.getElementById(`${name}-error`);
    if (!place || !this.form.contains(place)) return false;
    place.textContent = inWords(param, message);
    place.hidden = false;
    const field = this.field(name);
    field.setAttribute("aria-invalid", "true");
    (name === "size" && this.size.value === OTHER ? this.form.querySelector("#width") : field).focus();
    return true;
  }

  /** Take objections back: of one field, or all. */
  clear(name = null) {
    for (const place of this.form.querySelectorAll(name ? `#${name}-error` : ".error")) {
      place.hidden = true;
      place.textContent = "";
      this.field(place.id.slice(0, -"-error".length)).removeAttribute("aria-invalid");
    }
  }

  field(name) {
    return this.form.elements.namedItem(name);
  }

  shown(name) {
    return !this.field(name).closest(".field").hidden;
  }

  otherSize() {
    const [width, height] = this.sides.querySelectorAll("input");
    if (!width.value || !height.value) throw new Objection("size", "Both sides are needed, in pixels.");
    return `${width.value}x${height.value}`;
  }
}

/** `steps: got 900; allowed: 1 to 150` → what stands beside the field, whose name is there already. */
function inWords(param, message) {
  const text = message.startsWith(`${param}: `) ? message.slice(param.length + 2) : message;
  return text.charAt(0).toUpperCase() + text.slice(1);
}

function nameOf(field) {
  return ["width", "height"].includes(field.id) ? "size" : field.name;
}

function option(value, text) {
  return element("option", { value, textContent: text });
}

/** New options; what was chosen stays chosen if it is still there. */
function refill(select, options, usual) {
  const chosen = select.value;
  select.replaceChildren(...options);
  select.value = options.some(({ value }) => value === chosen) ? chosen : usual;
}

function grow(area) {
  area.style.height = "auto";
  area.style.height = `${area.scrollHeight + 2}px`;
}
