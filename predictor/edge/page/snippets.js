/** A job as code that anybody can run. The key is never in it: it comes from the environment. */

import { announce } from "./dom.js";

/** A job's request → the body of POST /v1/images/generations; what the model does not take is left out. */
export function asBody({ model, request }, capabilities) {
  const takes = (name) => capabilities?.parameters?.includes(name) ?? true;
  return {
    model,
    prompt: request.prompt,
    n: request.num_images,
    size: `${request.width}x${request.height}`,
    seed: request.seed,
    num_inference_steps: request.steps,
    ...(takes("guidance_scale") && { guidance_scale: request.guidance_scale }),
    ...(takes("sampler") && { sampler: request.sampler }),
    ...(request.negative_prompt && { negative_prompt: request.negative_prompt }),
    ...(request.truncate_prompt && { truncate_prompt: true }),
  };
}

export function asCurl(body, withKey) {
  const json = JSON.stringify({ ...body, response_format: "url" }, null, 2);
  return [
    `curl '${endpoint()}/images/generations'`,
    ...(withKey ? ['-H "Authorization: Bearer $SDZERO_API_KEY"'] : []),
    "-H 'Content-Type: application/json'",
    `-d '${json.replaceAll("'", "'\\''")}'`,
  ].join(" \\\n  ") + "\n";
}

const OPENAI = ["model", "prompt", "n", "size"];

export function asPython(body, withKey) {
  const standard = Object.entries(body).filter(([name]) => OPENAI.includes(name));
  const extra = Object.entries(body).filter(([name]) => !OPENAI.includes(name));
  return `import base64
${withKey ? "import os\n" : ""}from pathlib import Path

from openai import OpenAI

client = OpenAI(base_url=${python(endpoint())}, api_key=${withKey ? 'os.environ["SDZERO_API_KEY"]' : '"none"'})
answer = client.images.generate(
${standard.map(([name, value]) => `    ${name}=${python(value)},\n`).join("")}    response_format="b64_json",
    extra_body={
${extra.map(([name, value]) => `        ${python(name)}: ${python(value)},\n`).join("")}    },
)
for number, image in enumerate(answer.data, 1):
    Path(f"picture-{number}.png").write_bytes(base64.b64decode(image.b64_json))
`;
}

/** To the clipboard; outside https and localhost browsers have the old way only. */
export async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = document.createElement("textarea");
    area.value = text;
    area.className = "unseen";
    (document.querySelector("dialog[open]") ?? document.body).append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    if (!copied) {
      announce("The browser does not allow copying.");
      return false;
    }
  }
  announce(`${what} copied.`);
  return true;
}

function endpoint() {
  return new URL("v1", document.baseURI).href;
}

/** JSON's strings and numbers are Python's as well. */
function python(value) {
  return typeof value === "boolean" ? (value ? "True" : "False") : JSON.stringify(value);
}
