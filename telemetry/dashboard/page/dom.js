/**
 * Builds elements. Text becomes text, never markup: names and paths come from anywhere.
 */

const SVG = "http://www.w3.org/2000/svg";
const EVENTS = /^on/i;

/** @typedef {Node | string | number | null | undefined | false} Child */
/** @typedef {Record<string, string | number | boolean | null | undefined | ((event: any) => void)>} Attributes */

/**
 * @param {Element} element
 * @param {Attributes} attributes a function listens to the event of its name; false, null and undefined leave the attribute out
 */
export function set(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (EVENTS.test(name) || name === "style") throw new Error(`${name}: not from here`);
    else if (value === false || value === null || value === undefined) element.removeAttribute(name);
    else {
      const text = value === true ? "" : String(value);
      if (element.getAttribute(name) !== text) element.setAttribute(name, text);
    }
  }
}

/**
 * @param {Element} element
 * @param {Child[]} children
 */
function fill(element, children) {
  for (const child of children.flat()) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : String(child));
  }
}

/**
 * @param {string} tag
 * @param {Attributes} [attributes]
 * @param {...(Child | Child[])} children
 * @returns {HTMLElement}
 */
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  set(element, attributes);
  fill(element, children);
  return element;
}

/**
 * @param {string} tag
 * @param {Attributes} [attributes]
 * @param {...(Child | Child[])} children
 * @returns {SVGElement}
 */
export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  set(element, attributes);
  fill(element, children);
  return element;
}

/**
 * Puts a text in, if it is another one.
 * @param {Element} element
 * @param {string | number} text
 */
export function say(element, text) {
  const shown = String(text);
  if (element.textContent !== shown) element.textContent = shown;
}

/**
 * Makes a parent's children those of a list, reusing the ones with the same key, so that focus and selection stay.
 * @template T
 * @param {Element} parent
 * @param {T[]} items
 * @param {(item: T) => string} key
 * @param {(item: T) => Element} create
 * @param {(element: any, item: T) => void} update
 */
export function reconcile(parent, items, key, create, update) {
  const known = new Map();
  for (const child of parent.children) known.set(/** @type {any} */ (child).posternKey, child);
  let at = parent.firstElementChild;
  for (const item of items) {
    const name = key(item);
    let element = known.get(name);
    if (element === undefined) {
      element = create(item);
      element.posternKey = name;
    }
    known.delete(name);
    if (element === at) at = at.nextElementSibling;
    else parent.insertBefore(element, at);
    update(element, item);
  }
  for (const gone of known.values()) gone.remove();
}

/**
 * @param {Element} parent
 * @param {...Child} children
 */
export function replace(parent, ...children) {
  parent.replaceChildren();
  fill(parent, children);
}
