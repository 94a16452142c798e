/**
 * Makes and updates elements. Text is always set as text: nothing of a peer can become markup.
 *
 * Used by every view. Knows nothing of streams.
 */

/** @typedef {Node | string | number | null | undefined | false} Child */
/** @typedef {Record<string, string | number | boolean | null | undefined | ((event: any) => void)>} Properties */

/**
 * An element with attributes, listeners (`onclick`) and children. `null`, `undefined` and `false` are left out,
 * `true` is an attribute without a value.
 *
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {Properties} [properties]
 * @param {...Child} children
 * @returns {HTMLElementTagNameMap[T]}
 */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (typeof value === 'function') {
      element.addEventListener(name.slice(2), value);
    } else if (value !== null && value !== undefined && value !== false) {
      element.setAttribute(name, value === true ? '' : String(value));
    }
  }
  append(element, children);
  return element;
}

/**
 * @param {Element} parent
 * @param {Child[]} children
 */
function append(parent, children) {
  for (const child of children) {
    if (child instanceof Node) parent.append(child);
    else if (child !== null && child !== undefined && child !== false) parent.append(String(child));
  }
}

/**
 * Replaces all children.
 *
 * @param {Element} parent
 * @param {...Child} children
 */
export function fill(parent, ...children) {
  parent.replaceChildren();
  append(parent, children);
}

/**
 * Sets the text if it differs, so that screen readers and the layout are left in peace.
 *
 * @param {Element} element
 * @param {string | number} text
 */
export function setText(element, text) {
  const wanted = String(text);
  if (element.textContent !== wanted) element.textContent = wanted;
}

/**
 * Sets or removes an attribute if it differs.
 *
 * @param {Element} element
 * @param {string} name
 * @param {string | null} value
 */
export function setAttribute(element, name, value) {
  if (value === null) element.removeAttribute(name);
  else if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

/**
 * Keeps one element per item: makes missing ones, updates all, removes the rest, keeps the order. An element
 * stays the same as long as its item is there, so focus and graphs survive.
 *
 * @template I
 * @template {{element: Element, update: (item: I) => void, remove?: () => void}} P
 */
export class Keyed {
  /**
   * @param {Element} parent
   * @param {(item: I) => string} key
   * @param {(item: I) => P} make
   */
  constructor(parent, key, make) {
    this.parent = parent;
    this.key = key;
    this.make = make;
    /** @type {Map<string, P>} */
    this.parts = new Map();
  }

  /** @param {I[]} items */
  update(items) {
    /** @type {Map<string, P>} */
    const parts = new Map();
    /** @type {Element | null} */
    let previous = null;
    for (const item of items) {
      const key = this.key(item);
      const part = this.parts.get(key) ?? this.make(item);
      parts.set(key, part);
      this.parts.delete(key);
      part.update(item);
      /** @type {Element | null} */
      const wanted = previous ? previous.nextElementSibling : this.parent.firstElementChild;
      if (wanted !== part.element) this.parent.insertBefore(part.element, wanted);
      previous = part.element;
    }
    for (const part of this.parts.values()) {
      part.remove?.();
      part.element.remove();
    }
    this.parts = parts;
  }

  clear() {
    this.update([]);
  }
}

/**
 * Says something to screen readers, once.
 *
 * @param {string} text
 */
export function announce(text) {
  const announcer = document.getElementById('announcer');
  if (announcer) announcer.textContent = text;
}

/**
 * A button that copies a text and says so.
 *
 * @param {() => string} text
 * @param {string} what for screen readers: "Copy the RTMP address"
 */
export function copyButton(text, what) {
  const button = h('button', { type: 'button', class: 'small', 'aria-label': what }, 'Copy');
  button.addEventListener('click', async () => {
    const done = await copyText(text());
    button.textContent = done ? 'Copied' : 'Press Ctrl+C';
    announce(done ? 'Copied' : 'The text is selected; press Control C');
    setTimeout(() => { button.textContent = 'Copy'; }, 1500);
  });
  return button;
}

/**
 * Copies by the clipboard of the browser; where that is not allowed (plain HTTP from another machine), by a
 * selection.
 *
 * @param {string} text
 */
async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const field = h('textarea', { class: 'unseen', readonly: true });
    field.value = text;
    const holder = document.querySelector('dialog[open]') ?? document.body;
    const focused = document.activeElement;
    holder.append(field);
    field.select();
    const done = document.execCommand('copy');
    field.remove();
    if (focused instanceof HTMLElement) focused.focus();
    return done;
  }
}
