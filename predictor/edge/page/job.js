/** A job that has ended, on the stage and in its details: pictures, seed, numbers, and what can be done with it. */

import { phaseName } from "./cold_start.js";
import { button, element, seconds, table } from "./dom.js";
import { asBody, asCurl, asPython, copy } from "./snippets.js";

/** A picture with its seed and its download. `renewed(number)` gives a fresh link when the old one has run out. */
export function pictures(job, renewed) {
  return job.images.map((image, number) => {
    const shown = element("img", { alt: job.request.prompt, width: job.request.width, height: job.request.height });
    const download = element("a", { className: "button quiet", textContent: "Download", rel: "noopener" });
    download.download = `${job.id}-${number + 1}.${image.format === "jpeg" ? "jpg" : image.format}`;
    const link = (url) => {
      shown.src = url;
      download.href = url;
      if (new URL(url, document.baseURI).origin !== location.origin) download.target = "_blank";
    };
    shown.addEventListener("error", () => renewed(number).then(link, () => {}), { once: true });
    link(image.url);
    return { image: shown, download, seed: image.seed };
  });
}

/** The buttons of a job; `context` is { api, capabilities, form, follow }. */
export function actions(job, context, closing = () => {}) {
  const body = asBody(job, context.capabilities());
  const withKey = Boolean(context.api.key());
  const copies = (what, text) => button(`Copy as ${what}`, async ({ target }) => {
    if (await copy(text, what)) flash(target, "Copied");
  });
  return element("div", { className: "actions" },
    copies("curl", asCurl(body, withKey)),
    copies("Python", asPython(body, withKey)),
    job.state === "done" ? button("Replay", () => { closing(); context.replay(job); }) : null,
    button("Use these settings", () => { closing(); context.form.use(job.request); }),
  );
}

/** What was asked for. */
export function parameters(job) {
  const { request } = job;
  return table([
    ["Negative prompt", request.negative_prompt],
    ["Size", `${request.width} × ${request.height}`],
    ["Steps", request.steps],
    ["Guidance scale", request.guidance_scale],
    ["Sampler", request.sampler.replaceAll("_", " ")],
    [job.seeds.length > 1 ? "Seeds" : "Seed", job.seeds.join(", ")],
    ["Model", job.model],
  ]);
}

/** Where its time went, and what it cost. */
export function timings(job) {
  const stages = Object.entries(job.timing ?? {}).map(([name, value]) => [capital(phaseName(name)), exact(value)]);
  return table([
    ["Asked for", new Date(job.created * 1000).toLocaleString()],
    ["Took", job.finished ? seconds(job.finished - job.created) : null],
    ["GPU", job.usage?.gpu_seconds ? exact(job.usage.gpu_seconds) : null],
    ...stages,
    ["Note", notes(job).join(", ")],
  ]);
}

/** What is out of the ordinary, in words. */
export function notes(job) {
  return [
    job.usage?.cold_start && "a GPU was woken for it",
    job.cached && "from the cache: no GPU was used",
    job.joined && "shared with an identical request",
    job.identical === true && "the replay came out identical",
    job.identical === false && "the replay came out different",
  ].filter(Boolean);
}

/** Why a job has no pictures. */
export function ending(job) {
  if (job.state === "cancelled") return "Cancelled.";
  return job.error?.message ? capital(job.error.message) : "It failed.";
}

function exact(value) {
  return value < 1 ? `${Math.round(value * 1000)} ms` : `${value.toFixed(2)} s`;
}

function capital(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

function flash(target, text) {
  const before = target.textContent;
  target.textContent = text;
  setTimeout(() => { target.textContent = before; }, 1500);
}
