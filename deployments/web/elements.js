/** DOM elements from names, properties and children; strings become text, never HTML. */

export function make(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => ![null, undefined, false].includes(child)));
  return element;
}

export const byId = (id) => document.getElementById(id);

/** A bar that is filled to a share of 0 to 1. */
export function bar(share, className) {
  const filled = make("span", { class: `fill ${className}` });
  filled.style.width = `${Math.max(0, Math.min(1, share)) * 100}%`;
  return make("span", { class: "bar", "aria-hidden": "true" }, filled);
}
