/** Elements from data. Text stays text: nothing here, or anywhere in this page, parses markup. */

export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children.filter((child) => child !== null));
  return made;
}

export function button(text, onclick, className = "quiet") {
  return element("button", { type: "button", className, textContent: text, onclick });
}

/** Names and values as a list of definitions; pairs whose value is null are left out. */
export function table(pairs) {
  const rows = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return element("dl", {}, ...rows.map(([name, value]) =>
    element("div", {}, element("dt", { textContent: name }), element("dd", { textContent: value }))));
}

export function seconds(value) {
  return `${value < 9.95 ? value.toFixed(1) : Math.round(value)} s`;
}

const announcer = document.getElementById("announcer");

/** Tell those who do not see the page. */
export function announce(text) {
  announcer.textContent = text;
}
