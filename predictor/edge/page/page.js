/** The page's composition root. */

import { Api, ApiError, Unreachable } from "./api.js";
import { announce } from "./dom.js";
import { follow } from "./events.js";
import { Objection, RequestForm } from "./form.js";
import { Gallery } from "./gallery.js";
import { Kept } from "./kept.js";
import { Stage } from "./stage.js";

const kept = new Kept();
const api = new Api(() => kept.get("key"));
const notice = document.getElementById("notice");
const keyBox = document.getElementById("key-box");
const keyField = document.getElementById("key");
const keyError = document.getElementById("key-error");
const cancel = document.getElementById("cancel");
const form = new RequestForm(document.getElementById("request"), generate);
const context = { api, form, capabilities: () => capabilities, replay, complain };
const stage = new Stage(context);
const gallery = new Gallery(context);
let capabilities = null;
let following = null; // the id of the job on the stage

document.getElementById("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey(keyField.value.trim());
});
cancel.addEventListener("click", cancelled);
window.addEventListener("hashchange", () => keyOfAddress() && start());
keyBox.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || !keyBox.open) return;
  keyBox.open = false;
  keyBox.querySelector("summary").focus();
});

keyOfAddress();
start();

/** Read what there is to know; nothing of it wakes a GPU. */
async function start() {
  showKey();
  try {
    await learn();
    await gallery.load();
  } catch (error) {
    complain(error);
    return;
  }
  const id = kept.get("job");
  if (id && following === null) watch(await api.job(id).catch(() => null));
}

/** What the model can do. */
async function learn() {
  const model = await api.model();
  capabilities = model.capabilities;
  form.adopt(model);
  document.getElementById("model").textContent = model.id;
}

async function generate() {
  form.clear();
  hush();
  form.busy = true;
  try {
    // Without a model there was no key yet, or no server.
    if (form.model === null) await learn();
    const body = form.body();
    if (capabilities?.previews) body.previews = true;
    watch(await api.create(body));
  } catch (error) {
    form.busy = false;
    complain(error);
  }
}

async function replay(job) {
  if (following !== null) {
    complain(new Error("One job at a time: this one first."));
    return;
  }
  hush();
  form.busy = true;
  try {
    watch(await api.replay(job.id));
  } catch (error) {
    form.busy = false;
    complain(error);
  }
}

/** Follow a job to its end; null is none. */
async function watch(job) {
  if (job === null) return;
  following = job.id;
  kept.set("job", job.id);
  form.busy = true;
  cancel.disabled = false;
  stage.begin(job);
  gallery.put(job);
  try {
    for await (const { name, data } of follow(api, job.id, (lost) => stage.lost(lost))) {
      if (name === "queued") stage.queued(data);
      else if (name === "waking") stage.waking(data);
      else if (name === "progress") stage.step(data);
      else job = data;
    }
    stage.end(job);
    gallery.put(job);
  } catch (error) {
    stage.abandon();
    complain(error);
  }
  following = null;
  kept.set("job", "");
  form.busy = false;
  if (capabilities === null) learn().catch(() => {}); // the model has been awake: now it is known
}

async function cancelled() {
  cancel.disabled = true;
  try {
    await api.cancel(following);
  } catch (error) {
    cancel.disabled = false;
    complain(error);
  }
}

/** Say what is wrong where it can be mended: at the key, at the field, or else above the picture. */
function complain(error) {
  if (error instanceof ApiError && error.status === 401) {
    keyBox.open = true;
    keyError.textContent = error.message;
    keyError.hidden = false;
    keyField.setAttribute("aria-invalid", "true");
    keyField.focus();
    announce(error.message);
    return;
  }
  if ((error instanceof ApiError || error instanceof Objection) && form.object(error)) {
    announce(error.message);
    return;
  }
  const expected = error instanceof ApiError || error instanceof Unreachable;
  const again = error.retryAfter ? ` Try again in ${error.retryAfter} s.` : "";
  notice.textContent = `${expected || error.constructor === Error ? error.message : "Something went wrong."}${again}`;
  notice.hidden = false;
  if (!expected && error.constructor !== Error) throw error;
}

function hush() {
  notice.hidden = true;
  notice.textContent = "";
}

/** `#key=…` becomes this tab's key, and leaves the address bar and the history. */
function keyOfAddress() {
  const key = new URLSearchParams(location.hash.slice(1)).get("key");
  if (key === null) return false;
  kept.set("key", key);
  history.replaceState(null, "", location.pathname + location.search);
  return true;
}

function useKey(key) {
  kept.set("key", key);
  keyBox.open = false;
  hush();
  start();
}

function showKey() {
  const key = kept.get("key");
  keyField.value = key;
  keyField.removeAttribute("aria-invalid");
  keyError.hidden = true;
  document.getElementById("key-state").textContent = key ? ` …${key.slice(-4)}` : " none";
}
